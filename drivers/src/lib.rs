//! One driver a netdev type, each behind the two traits of the data plane.
