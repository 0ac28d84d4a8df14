//! A swarm with liars in it, beside the same swarm without: nobody stores a bad piece, everybody gets everything, and soon enough.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Report;
use crate::hostile::Kind;
use crate::random::Random;
use crate::round::{Plan, Round};
use crate::world::World;

const LIARS: [Kind; 3] = [Kind::Colluder, Kind::Colluder, Kind::RareLiar];
/// How many times as long it may take with them, over all rounds.
const BAR: f64 = 1.5;
/// No round takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(900);

/// Seconds until the last peer has everything.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Times {
    without: f64,
    with: f64,
}

/// Runs so many rounds, each with liars and without. An error is a loss, as is what it adds to the report's failures.
pub(crate) async fn run(
    world: &mut World,
    (rounds, keep): (u32, bool),
    plan: impl Fn(String) -> Plan,
    mut random: Random,
    report: &mut Report,
) -> Result<()> {
    for number in 1..=rounds {
        report.rounds += 1;
        let mut times = Times { without: 0.0, with: 0.0 };
        // Who comes first takes turns.
        for lying in [number.is_multiple_of(2), !number.is_multiple_of(2)] {
            let name = format!("round-{number}-{}", if lying { "with-liars" } else { "without" });
            let seconds = swarm(world, &plan(name.clone()), lying, random.fork(), report).await;
            let seconds = seconds.with_context(|| name.clone())?;
            *(if lying { &mut times.with } else { &mut times.without }) = seconds;
            eprintln!("{name}: {seconds:.1} s");
            if !keep && report.failures.is_empty() {
                std::fs::remove_dir_all(world.path(&name))?;
            }
        }
        report.liars.push(times);
    }
    let total = |of: fn(&Times) -> f64| report.liars.iter().map(of).sum::<f64>();
    let ratio = total(|times| times.with) / total(|times| times.without);
    report.ratio = Some(ratio);
    if ratio > BAR {
        report.fail(format!("liars made it {ratio:.2} times as long: expected at most {BAR}"));
    }
    Ok(())
}

/// One swarm: seconds until the last peer had everything.
async fn swarm(
    world: &mut World,
    plan: &Plan,
    lying: bool,
    mut random: Random,
    report: &mut Report,
) -> Result<f64> {
    let mut round = Round::prepare(world, plan, &mut random).await?;
    round.start(world)?;
    let mut liars = Vec::new();
    for (number, kind) in (1..).zip(LIARS).filter(|_| lying) {
        liars.push(round.join(number, kind, &mut random)?);
    }
    let took = round.all_complete(PATIENCE, report).await;
    drop(liars);
    round.count_sent(report);
    round.verify(world, report).await;
    round.end(report).await?;
    Ok(took.as_secs_f64())
}
