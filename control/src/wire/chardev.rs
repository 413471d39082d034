//! `chardev-add`: a unix socket on which, or to which, a front end connects.
//!
//! Over QMP the address comes in the older, wrapped form; on the command line and in a file the members lie flat. Both
//! end as the same [`ChardevAdd`].

use std::path::PathBuf;
use std::time::Duration;

use ringyard_drivers::chardev::SocketRole;

use crate::qapi::{QapiEnum, QapiError, Visitor, answer, arguments, check_id, options, union};

/// The arguments of `chardev-add`, types checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChardevAdd {
    /// A well-formed identifier.
    pub id: String,
    /// The backend; `socket` is the only one.
    pub backend: SocketBackend,
}

/// The members of a `socket` backend with a unix address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketBackend {
    /// The socket's path.
    pub path: String,
    /// Whether we listen.
    pub server: bool,
    /// Whether to wait for the first connection. We never do; it is an error only for a client.
    pub wait: Option<bool>,
    /// Seconds between attempts to connect; 0: none.
    pub reconnect: Option<i64>,
    /// The same in milliseconds.
    pub reconnect_ms: Option<i64>,
}

arguments! {
    /// `chardev-add` over QMP.
    pub struct ChardevAddArguments as "q_obj_chardev-add-arg" {
        id: String,
        backend: ChardevBackend,
    }
}

union! {
    /// What is behind a chardev.
    enum ChardevBackend as "ChardevBackend" by "ChardevBackendKind" {
        "socket" => Socket(ChardevSocketWrapper),
    }
}

options! {
    /// The older form of a union has its members in an object of their own.
    struct ChardevSocketWrapper as "ChardevSocketWrapper" {
        data: ChardevSocket,
    }
}

options! {
    struct ChardevSocket as "ChardevSocket" {
        addr: SocketAddressLegacy,
        server: Option<bool>,
        wait: Option<bool>,
        reconnect: Option<i64>,
        reconnect_ms: Option<i64>,
    }
}

union! {
    /// Only unix sockets pass file descriptors, and every chardev here is for a front end that must.
    enum SocketAddressLegacy as "SocketAddressLegacy" by "SocketAddressLegacyType" {
        "unix" => Unix(UnixWrapper),
    }
}

options! {
    struct UnixWrapper as "UnixSocketAddressWrapper" {
        data: UnixPath,
    }
}

options! {
    struct UnixPath as "UnixPath" {
        path: String,
    }
}

arguments! {
    /// The flat form of an option and of a table.
    struct ChardevFlat as "ChardevOptions" {
        kind: BackendType = "type",
        id: String,
        path: String,
        server: Option<bool>,
        wait: Option<bool>,
        reconnect: Option<i64>,
        reconnect_ms: Option<i64>,
    }
}

answer! {
    /// What `query-chardev` returns of a chardev.
    #[derive(Clone, Debug)]
    pub struct ChardevInfo as "ChardevInfo" {
        /// Its id.
        pub label: String,
        /// What it is and how it stands.
        pub filename: String,
        /// Whether a netdev uses it.
        pub frontend_open: bool,
    }
}

/// A chardev that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChardevSpec {
    /// A well-formed identifier.
    pub id: String,
    /// A path that fits into a socket address.
    pub path: PathBuf,
    /// Who connects to whom.
    pub role: SocketRole,
}

impl ChardevAdd {
    /// Visits the arguments of the QMP command. Ends the visit.
    pub fn visit(visitor: Visitor) -> Result<Self, QapiError> {
        let ChardevAddArguments { id, backend } = visitor.whole()?;
        let ChardevBackend::Socket(ChardevSocketWrapper { data }) = backend;
        let ChardevSocket { addr, server, wait, reconnect, reconnect_ms } = data;
        let SocketAddressLegacy::Unix(UnixWrapper { data: UnixPath { path } }) = addr;
        check_id(&id)?;
        let server = server.unwrap_or(true);
        Ok(ChardevAdd { id, backend: SocketBackend { path, server, wait, reconnect, reconnect_ms } })
    }

    /// Visits the flat form: `socket,id=c0,path=…,server=on,wait=off`. Ends the visit.
    pub fn visit_flat(visitor: Visitor) -> Result<Self, QapiError> {
        let ChardevFlat { kind: BackendType::Socket, id, path, server, wait, reconnect, reconnect_ms } =
            visitor.whole()?;
        check_id(&id)?;
        let server = server.unwrap_or(false);
        Ok(ChardevAdd { id, backend: SocketBackend { path, server, wait, reconnect, reconnect_ms } })
    }

    /// Checks what the members say together. Whether the id is taken comes before this.
    pub fn resolve(self) -> Result<ChardevSpec, QapiError> {
        let ChardevAdd { id, backend } = self;
        let resolved = backend.role().and_then(|role| Ok((role, unix_path(&backend.path)?)));
        match resolved {
            Ok((role, path)) => Ok(ChardevSpec { id, path, role }),
            Err(error) => Err(QapiError::generic(format!("Failed to add chardev '{id}': {error}"))),
        }
    }
}

impl SocketBackend {
    fn role(&self) -> Result<SocketRole, QapiError> {
        let reconnect = reconnect_pause(self.reconnect, self.reconnect_ms)?;
        if !self.server {
            if self.wait.is_some() {
                return refused("'wait' option is incompatible with socket in client connect mode");
            }
            return Ok(SocketRole::Client { reconnect });
        }
        match (self.reconnect, self.reconnect_ms) {
            (None, None) => Ok(SocketRole::Server),
            (Some(_), _) => refused("'reconnect' option is incompatible with socket in server listen mode"),
            (_, Some(_)) => {
                refused("'reconnect-ms' option is incompatible with socket in server listen mode")
            }
        }
    }
}

impl ChardevSpec {
    /// What `query-chardev` shows as `filename`.
    pub fn filename(&self, connected: bool) -> String {
        let state = if connected { "" } else { "disconnected:" };
        let server = if self.role == SocketRole::Server { ",server=on" } else { "" };
        format!("{state}unix:{}{server}", self.path.display())
    }
}

/// The pause before a client connects again, which is given in seconds or in milliseconds; none or 0: it does not.
pub(crate) fn reconnect_pause(seconds: Option<i64>, ms: Option<i64>) -> Result<Option<Duration>, QapiError> {
    let pause = match (seconds, ms) {
        (Some(_), Some(_)) => return refused("'reconnect' and 'reconnect-ms' are mutually exclusive"),
        (Some(seconds), None) => Duration::from_secs(limited("reconnect", seconds)?),
        (None, ms) => Duration::from_millis(limited("reconnect-ms", ms.unwrap_or(0))?),
    };
    Ok(Some(pause).filter(|pause| !pause.is_zero()))
}

/// The schema says `int`; what makes sense fits into 32 bits without a sign.
fn limited(name: &str, value: i64) -> Result<u64, QapiError> {
    let value = u32::try_from(value).map(u64::from);
    value.map_err(|_| QapiError::generic(format!("'{name}' must be in range [0, {}]", u32::MAX)))
}

/// A path that fits into a unix socket address.
pub fn unix_path(path: &str) -> Result<PathBuf, QapiError> {
    if path.is_empty() || path.contains('\0') {
        return refused("UNIX socket path is empty or contains a NUL");
    }
    if path.len() > PATH_BYTES_MAX {
        return refused(&format!("UNIX socket path '{path}' is too long"));
    }
    Ok(path.into())
}

fn refused<T>(text: &str) -> Result<T, QapiError> {
    Err(QapiError::generic(text))
}

/// `sun_path` without its closing NUL.
const PATH_BYTES_MAX: usize = 107;

#[derive(Clone, Copy)]
enum BackendType {
    Socket,
}

impl QapiEnum for BackendType {
    const TYPE: &'static str = "ChardevOptionType";
    const NAMES: &'static [(&'static str, Self)] = &[("socket", BackendType::Socket)];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, parse_keyval};
    use serde_json::{Value, json};

    fn wrapped(data: Value) -> Result<ChardevSpec, String> {
        let arguments = json!({"id": "c0", "backend": {"type": "socket", "data": data}});
        let Value::Object(members) = arguments else { unreachable!("it is an object") };
        let add = ChardevAdd::visit(Visitor::new(members, Form::Json));
        add.and_then(ChardevAdd::resolve).map_err(|error| error.desc)
    }

    fn flat(options: &str) -> Result<ChardevSpec, String> {
        let members = parse_keyval(options, "type", Flags::Accepted).expect(options);
        let add = ChardevAdd::visit_flat(Visitor::new(members, Form::Keyval));
        add.and_then(ChardevAdd::resolve).map_err(|error| error.desc)
    }

    fn spec(role: SocketRole) -> Result<ChardevSpec, String> {
        Ok(ChardevSpec { id: "c0".into(), path: "/p".into(), role })
    }

    fn failed<T>(why: &str) -> Result<T, String> {
        Err(format!("Failed to add chardev 'c0': {why}"))
    }

    #[test]
    fn both_forms_give_the_same_spec() {
        let addr = json!({"type": "unix", "data": {"path": "/p"}});
        assert_eq!(wrapped(json!({"addr": addr})), spec(SocketRole::Server));
        assert_eq!(flat("socket,id=c0,path=/p,server=on,wait=off"), spec(SocketRole::Server));
        assert_eq!(flat("socket,id=c0,path=/p,server,nowait"), spec(SocketRole::Server));
        let client = |milliseconds| SocketRole::Client { reconnect: milliseconds };
        let data = json!({"addr": addr, "server": false, "reconnect": 2});
        assert_eq!(wrapped(data), spec(client(Some(Duration::from_secs(2)))));
        assert_eq!(
            flat("socket,id=c0,path=/p,reconnect-ms=50"),
            spec(client(Some(Duration::from_millis(50))))
        );
        assert_eq!(flat("socket,id=c0,path=/p,reconnect=0"), spec(client(None)));
    }

    #[test]
    fn options_of_the_other_role_are_refused() {
        let server = "option is incompatible with socket in server listen mode";
        let options = "socket,id=c0,path=/p,server=on";
        assert_eq!(flat(&format!("{options},reconnect=1")), failed(&format!("'reconnect' {server}")));
        assert_eq!(flat(&format!("{options},reconnect-ms=1")), failed(&format!("'reconnect-ms' {server}")));
        let client = "'wait' option is incompatible with socket in client connect mode";
        assert_eq!(flat("socket,id=c0,path=/p,wait=off"), failed(client));
        let range = "'reconnect' must be in range [0, 4294967295]";
        assert_eq!(flat("socket,id=c0,path=/p,reconnect=-1"), failed(range));
        let both = "'reconnect' and 'reconnect-ms' are mutually exclusive";
        assert_eq!(flat("socket,id=c0,path=/p,reconnect=1,reconnect-ms=1"), failed(both));
    }

    #[test]
    fn a_members_place_is_named_in_full() {
        let missing = "Parameter 'backend.data.addr' is missing";
        assert_eq!(wrapped(json!({})), Err(missing.into()));
        let addr = json!({"type": "unix", "data": {"path": "/p", "foo": 1}});
        let unexpected = "Parameter 'backend.data.addr.data.foo' is unexpected";
        assert_eq!(wrapped(json!({"addr": addr})), Err(unexpected.into()));
        let inet = json!({"type": "inet", "data": {}});
        let refused = "Parameter 'type' does not accept value 'inet'";
        assert_eq!(wrapped(json!({"addr": inet})), Err(refused.into()));
        assert_eq!(flat("pty,id=c0"), Err("Parameter 'type' does not accept value 'pty'".into()));
    }

    #[test]
    fn a_path_must_fit_into_an_address() {
        assert!(unix_path(&"x".repeat(107)).is_ok());
        assert!(unix_path(&"x".repeat(108)).is_err());
        assert!(unix_path("").is_err() && unix_path("a\0b").is_err());
    }

    #[test]
    fn the_filename_tells_role_and_state() {
        let server = flat("socket,id=c0,path=/p,server=on").expect("it is valid");
        assert_eq!(server.filename(false), "disconnected:unix:/p,server=on");
        assert_eq!(server.filename(true), "unix:/p,server=on");
        let client = flat("socket,id=c0,path=/p").expect("it is valid");
        assert_eq!(client.filename(true), "unix:/p");
    }
}
