//! `myelin room …`: the rooms of this server.

use std::{
    fmt::{self, Write as _},
    process::ExitCode,
};

use myelin_rooms::doctor::{Peer, Problem, Report, Severity, Side, Verdict};

use super::{Outcome, Settings, ask::ask, print};
use crate::{cli::RoomCommand, control::Request};

/// The exit code for a room with which something is wrong.
const WRONG: u8 = 2;
/// How many findings of one kind are shown; a file with all of them is made with `--json`.
const SHOWN: usize = 10;

pub(super) fn run(settings: &Settings, command: RoomCommand) -> Outcome {
    let config = settings.load()?;
    match command {
        RoomCommand::Check {
            room,
            compare,
            servers,
            json,
        } => {
            let compare_with = if compare { servers } else { 0 };
            let answer = ask(settings, &config, Request::CheckRoom { room, compare_with })?;
            let report: Report = serde_json::from_value(answer)?;
            if json {
                print(&serde_json::to_string_pretty(&report)?)?;
            } else {
                print(text(&report)?.trim_end())?;
            }
            Ok(match report.verdict {
                Verdict::Healthy => ExitCode::SUCCESS,
                Verdict::Doubtful | Verdict::Damaged => ExitCode::from(WRONG),
            })
        }
    }
}

/// A report for people.
fn text(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    writeln!(out, "Room {} (version {})", report.room_id, report.version)?;
    writeln!(
        out,
        "  {} events, {} more kept out ({} broke the rules, {} came too late), {} known by reference only",
        report.accepted,
        report.rejected + report.soft_failed,
        report.rejected,
        report.soft_failed,
        report.outliers,
    )?;
    writeln!(
        out,
        "  {} members on {} servers, {} entries of state",
        report.joined, report.servers, report.state_entries
    )?;
    if report.underived > 0 {
        writeln!(
            out,
            "  {} events follow history that is not here: the state before them is believed as it was received",
            report.underived
        )?;
    }
    for (severity, name) in [
        (Severity::Damage, "WRONG"),
        (Severity::Warning, "DOUBTFUL"),
        (Severity::Note, "NOTE"),
    ] {
        findings(&mut out, report, severity, name)?;
    }
    if report.further > 0 {
        writeln!(out, "\n{} more findings are not listed.", report.further)?;
    }
    for peer in &report.peers {
        compared(&mut out, peer)?;
    }
    writeln!(
        out,
        "\n{}",
        match report.verdict {
            Verdict::Healthy => "The room is healthy.",
            Verdict::Doubtful => "The room works. Something in it is doubtful, see above.",
            Verdict::Damaged => "What this server has of the room is wrong, see above.",
        }
    )?;
    Ok(out)
}

/// The findings of one severity, those of a kind together.
fn findings(out: &mut String, report: &Report, severity: Severity, name: &str) -> fmt::Result {
    let mut kinds: Vec<Problem> = Vec::new();
    for finding in &report.findings {
        if finding.severity == severity && !kinds.contains(&finding.problem) {
            kinds.push(finding.problem);
        }
    }
    for kind in kinds {
        let all = report.findings.iter();
        let of_kind = all.filter(|finding| finding.severity == severity && finding.problem == kind);
        writeln!(out, "\n{name}: {}", kind.title())?;
        for finding in of_kind.clone().take(SHOWN) {
            match &finding.event_id {
                Some(event_id) => writeln!(out, "  {event_id}\n    {}", finding.what)?,
                None => writeln!(out, "  {}", finding.what)?,
            }
        }
        let count = of_kind.count();
        if count > SHOWN {
            writeln!(out, "  and {} more (all with --json)", count - SHOWN)?;
        }
        writeln!(out, "  What to do: {}", kind.advice())?;
    }
    Ok(())
}

/// What another server said.
fn compared(out: &mut String, peer: &Peer) -> fmt::Result {
    if peer.agrees {
        return writeln!(out, "\n{} has the same state.", peer.server);
    }
    writeln!(out, "\n{} differs before {}:", peer.server, peer.event_id)?;
    for difference in &peer.differences {
        let side = match difference.side {
            Side::Here => "only here ",
            Side::There => "only there",
        };
        writeln!(
            out,
            "  {side}  {}\n    {}",
            difference.event_id, difference.why
        )?;
    }
    if peer.further > 0 {
        writeln!(out, "  and {} more", peer.further)?;
    }
    Ok(())
}
