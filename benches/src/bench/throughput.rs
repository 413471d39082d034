//! Rates at a size: the maximum receive rate, the rates at no and at little loss, and the longest burst.

use std::time::Duration;

use super::frame::Size;
use super::machine::Gap;
use super::pacer::Load;
use super::report::{BackToBack, Checks, Figure, Mrr, SizeReport, WAIT_SHARE_MIN};
use super::rig::Rig;
use super::search::{Found, Goal, Limits, Measured, Search};
use super::trial::{Stream, Trial};
use crate::error::Result;
use crate::load::median;

/// Loss ratio of the partial-drop rate (CSIT).
pub const PDR_LOSS_RATIO: f64 = 0.005;
/// Of the maximum receive rate: where a search begins to look.
const SEARCH_FROM: f64 = 0.001;
/// Of the maximum receive rate: where it ends to look.
const SEARCH_TO: f64 = 2.0;

/// Measures all of it. `ceiling` is what the generator can send, in frames a second; `gaps` are the machine's.
pub fn measure(rig: &mut Rig<'_>, size: Size, ceiling: f64, gaps: &[Gap]) -> Result<SizeReport> {
    rig.plug(rig.ports_for_load(), size)?;
    rig.checks = Checks::default();
    let mut streams = rig.streams(size)?;
    rig.say(&format!("{}: maximum receive rate", size.label()));
    let mrr = mrr(rig, &mut streams)?;
    rig.say(&format!("{}: MRR {:.3} Mpps; searching PDR", size.label(), mrr.median / 1e6));
    let (ndr, pdr) = ndr_and_pdr(rig, &mut streams, size, mrr.median, gaps)?;
    rig.say(&format!("{}: back to back", size.label()));
    let back_to_back = back_to_back(rig, &mut streams, ceiling)?;
    Ok(SizeReport {
        size: size.to_string(),
        mean_bytes: size.mean(),
        mrr,
        ndr,
        pdr,
        back_to_back,
        checks: std::mem::take(&mut rig.checks),
    })
}

fn mrr(rig: &mut Rig<'_>, streams: &mut [Stream]) -> Result<Mrr> {
    let time = rig.config.effort.mrr_time;
    let trials: Vec<Trial> =
        (0..rig.config.rounds).map(|_| rig.trial(streams, Load::Max, time)).collect::<Result<_>>()?;
    let middle = |value: fn(&Trial) -> f64| median(&trials.iter().map(value).collect::<Vec<f64>>());
    let wait_share = middle(Trial::wait_share);
    Ok(Mrr {
        rates: trials.iter().map(Trial::receive_rate).collect(),
        median: middle(Trial::receive_rate),
        lost: trials.iter().map(Trial::lost).sum(),
        wait_share,
        generator_bound: wait_share < WAIT_SHARE_MIN,
        send_batch: middle(|trial| trial.send_batch),
        receive_batch: middle(|trial| trial.receive_batch),
    })
}

type Rates = (Figure<Found>, Figure<Found>);

fn ndr_and_pdr(
    rig: &mut Rig<'_>,
    streams: &mut [Stream],
    size: Size,
    mrr: f64,
    gaps: &[Gap],
) -> Result<Rates> {
    let limits = Limits {
        min: mrr * SEARCH_FROM,
        max: mrr * SEARCH_TO,
        trials_max: rig.config.effort.search_trials_max,
        time_max: rig.config.effort.search_time_max,
    };
    if mrr <= 0.0 {
        let none = || Figure::Absent("no frame arrived at the greatest load".into());
        return Ok((none(), none()));
    }
    let mut search = Search::default();
    let pdr = search_goal(rig, streams, &mut search, PDR_LOSS_RATIO, mrr, limits)?;
    let from = pdr.value().map_or(mrr, |found| found.lower);
    // NDR is no more than PDR: where a gap at that rate overruns a ring, no loss can be told from the machine's own.
    if let Some(why) = refusal(gaps, from, rig.config.ring_size, rig.config.pairs) {
        return Ok((Figure::Absent(why), pdr));
    }
    rig.say(&format!("{}: PDR {:.3} Mpps; searching NDR", size.label(), from / 1e6));
    let ndr = search_goal(rig, streams, &mut search, 0.0, from, limits)?;
    let away = Gap { core: rig.config.generator_core, longest_us: rig.checks.turn_max_us, stolen: 0.0 };
    let rate = ndr.value().map_or(0.0, |found| found.lower);
    match refusal(&[away], rate, rig.config.ring_size, rig.config.pairs) {
        Some(why) => Ok((Figure::Absent(why), pdr)),
        None => Ok((ndr, pdr)),
    }
}

/// Why no loss-free rate can be told on a machine with such gaps.
pub fn refusal(gaps: &[Gap], rate: f64, ring_size: u16, pairs: u16) -> Option<String> {
    let worst = gaps.iter().max_by(|a, b| a.longest_us.total_cmp(&b.longest_us))?;
    let frames = worst.longest_us * 1e-6 * rate;
    let room = f64::from(ring_size) * f64::from(pairs);
    (frames > room).then(|| {
        format!(
            "core {} was taken away for {:.0} us: at {:.3} Mpps that is {frames:.0} frames, and the rings hold {room}",
            worst.core,
            worst.longest_us,
            rate / 1e6,
        )
    })
}

fn search_goal(
    rig: &mut Rig<'_>,
    streams: &mut [Stream],
    search: &mut Search,
    loss_ratio: f64,
    from: f64,
    limits: Limits,
) -> Result<Figure<Found>> {
    let goal = Goal { loss_ratio, ..rig.config.effort.goal };
    let found = search.find(&goal, from, limits, &mut |load, time| measured(rig, streams, load, time))?;
    Ok(match found {
        Some(found) => Figure::Value(found),
        None => Figure::Absent(format!(
            "of the loads that were tried, down to {:.4} Mpps, none was decided good",
            search.lowest() / 1e6
        )),
    })
}

fn measured(rig: &mut Rig<'_>, streams: &mut [Stream], load: f64, time: Duration) -> Result<Measured> {
    let trial = rig.trial(streams, Load::Rate(load), time)?;
    Ok(Measured { load, seconds: time.as_secs_f64(), loss_ratio: trial.loss_ratio() })
}

/// Bisects between one frame and a trial's worth of frames.
fn back_to_back(rig: &mut Rig<'_>, streams: &mut [Stream], rate: f64) -> Result<Figure<BackToBack>> {
    let time = rig.config.effort.mrr_time;
    let most = (rate * time.as_secs_f64()) as u64;
    let repetitions = rig.config.effort.bursts;
    let (mut sum, mut unlimited) = (0.0, 0);
    for _ in 0..repetitions {
        let mut passes = |frames: u64| -> Result<bool> {
            let trial = rig.trial(streams, Load::Burst { frames, rate }, time * 2)?;
            Ok(trial.lost() == 0)
        };
        if passes(most)? {
            unlimited += 1;
            sum += most as f64;
            continue;
        }
        let (mut good, mut bad) = (0, most);
        while bad - good > 1 && (bad as f64) > (good as f64) * (1.0 + BURST_WIDTH) {
            let frames = if good == 0 { bad / 4 } else { good.midpoint(bad) }.max(good + 1);
            *(if passes(frames)? { &mut good } else { &mut bad }) = frames;
        }
        sum += good as f64;
    }
    let frames = sum / repetitions.max(1) as f64;
    Ok(Figure::Value(BackToBack { frames, rate, unlimited, repetitions }))
}

/// How near the bounds of a burst's length come.
const BURST_WIDTH: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_drop_rate_is_refused_where_a_gap_overruns_the_rings() {
        let gap = |longest_us| Gap { core: 1, longest_us, stolen: 0.0 };
        let gaps = [gap(20.0), gap(100.0)];
        assert_eq!(refusal(&gaps, 10e6, 1024, 1), None, "1000 frames fit 1024 entries");
        let why = refusal(&gaps, 11e6, 1024, 1).unwrap();
        assert!(why.contains("core 1") && why.contains("100 us") && why.contains("1100 frames"), "{why}");
        assert_eq!(refusal(&gaps, 11e6, 1024, 2), None, "two rings hold twice as many");
        assert_eq!(refusal(&[], 1e9, 1024, 1), None);
    }
}
