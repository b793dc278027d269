//! The bars that Myelin has to clear, each computed here and nowhere else.
//!
//! A bar that compares servers reads the run in which they took turns. A bar on Myelin alone reads the run at full size where
//! that one has the scenario. A figure that is missing makes the bar absent: nothing is estimated.

use super::{
    Run, Runs,
    numbers::{number, ratio},
    table::Table,
    words,
};
use crate::figures::Figure;

const MYELIN: &str = "myelin";

/// A bar on a figure of Myelin.
struct Bar {
    what: &'static str,
    scenario: &'static str,
    metric: &'static str,
    than: Than,
    wanted: Wanted,
}

/// What Myelin's figure is held against.
#[derive(Clone, Copy)]
enum Than {
    /// The same figure of a server.
    Server(&'static str),
    /// The same figure of that peer which has most.
    BestPeer,
    /// Another figure of Myelin in the same scenario.
    Own(&'static str),
    /// Nothing; its unit.
    Fixed(&'static str),
    /// Nothing, after another figure of Myelin in the same scenario was taken off; the unit of both.
    FixedAbove(&'static str, &'static str),
}

/// What is asked of the ratio, or of the figure itself where it is held against nothing.
#[derive(Clone, Copy)]
enum Wanted {
    Least(f64),
    Most(f64),
    /// At most, or a difference that is no larger than this other figure, the resolution of both.
    Within(f64, &'static str),
}

/// All bars, in the order of the page.
const BARS: &[Bar] = &[
    Bar {
        what: "Events sent per second, one room",
        scenario: "send",
        metric: "throughput",
        than: Than::Server("synapse"),
        wanted: Wanted::Least(60.0),
    },
    Bar {
        what: "Events sent per second, one room",
        scenario: "send",
        metric: "throughput",
        than: Than::Server("floor"),
        wanted: Wanted::Least(1.0 / 3.0),
    },
    Bar {
        what: "Events sent per second, many rooms",
        scenario: "send_many_rooms",
        metric: "throughput",
        than: Than::BestPeer,
        wanted: Wanted::Least(40.0),
    },
    Bar {
        what: "Server CPU per event, one room",
        scenario: "send",
        metric: "cpu",
        than: Than::Server("synapse"),
        wanted: Wanted::Most(1.0 / 60.0),
    },
    Bar {
        what: "Answer to a send, 99 %",
        scenario: "send",
        metric: "answer_p99",
        than: Than::Server("synapse"),
        wanted: Wanted::Most(1.0 / 20.0),
    },
    Bar {
        what: "Send to sync, median",
        scenario: "send",
        metric: "to_sync_p50",
        than: Than::Server("synapse"),
        wanted: Wanted::Most(1.0 / 20.0),
    },
    Bar {
        what: "First sync",
        scenario: "initial_sync",
        metric: "first",
        than: Than::Server("synapse"),
        wanted: Wanted::Most(1.0 / 50.0),
    },
    Bar {
        what: "Server CPU per sync with nothing new",
        scenario: "initial_sync",
        metric: "cpu_nothing_new",
        than: Than::Server("synapse"),
        wanted: Wanted::Most(1.0 / 30.0),
    },
    Bar {
        what: "Server CPU per sync with nothing new, ten times the rooms",
        scenario: "initial_sync",
        metric: "cpu_nothing_new",
        than: Than::Own("cpu_nothing_new_tenth"),
        wanted: Wanted::Within(1.2, "cpu_resolution"),
    },
    Bar {
        what: "Highest memory over the whole set",
        scenario: "all",
        metric: "peak_rss",
        than: Than::Server("synapse"),
        wanted: Wanted::Most(1.0 / 5.0),
    },
    Bar {
        what: "Memory with idle clients",
        scenario: "idle",
        metric: "peak_rss",
        than: Than::Fixed("MiB"),
        wanted: Wanted::Most(100.0),
    },
    Bar {
        what: "Disk per message event",
        scenario: "send",
        metric: "disk_per_event",
        than: Than::Own("event_json"),
        wanted: Wanted::Most(1.5),
    },
    Bar {
        what: "State bytes per state event",
        scenario: "state_churn",
        metric: "disk_per_state_event",
        than: Than::FixedAbove("event_json", "bytes"),
        wanted: Wanted::Most(1_024.0),
    },
    Bar {
        what: "Fan-out, until the last member is served",
        scenario: "fan_out",
        metric: "to_sync_p50",
        than: Than::Server("synapse"),
        wanted: Wanted::Most(1.0 / 10.0),
    },
    Bar {
        what: "Server CPU per message, big room by room of two",
        scenario: "big_room",
        metric: "cpu",
        than: Than::Own("cpu_small_room"),
        wanted: Wanted::Most(2.0),
    },
];

/// A bar held against the figures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judged {
    /// What is measured.
    pub(crate) bar: &'static str,
    /// What is asked for.
    pub(crate) wanted: String,
    /// Myelin's figure with its unit, if it is there.
    pub(crate) myelin: String,
    /// What it is compared with, and that one's figure.
    pub(crate) other: String,
    /// Myelin's figure by the other, if both are there.
    pub(crate) ratio: String,
    /// The scale of the figures.
    pub(crate) scale: f64,
    pub(crate) verdict: Verdict,
}

/// How it came out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// A figure is missing; why.
    Absent(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "**missed**",
            Self::Absent(_) => "absent",
        }
    }
}

/// Holds Myelin against all bars.
pub(crate) fn judge(runs: &Runs) -> Vec<Judged> {
    BARS.iter().map(|bar| bar.judge(bar.run(runs))).collect()
}

/// The bars as a table.
pub(crate) fn table(judged: &[Judged]) -> Table {
    let head = [
        "bar",
        "compared with",
        "scale",
        "Myelin",
        "ratio",
        "wanted",
        "outcome",
    ];
    let mut table = Table::new(2, head);
    for bar in judged {
        table.row([
            bar.bar,
            &bar.other,
            &number(bar.scale),
            &bar.myelin,
            &bar.ratio,
            &bar.wanted,
            bar.verdict.word(),
        ]);
    }
    table
}

/// Why bars are absent, a sentence each.
pub(crate) fn absences(judged: &[Judged]) -> Vec<String> {
    let absent = judged.iter().filter_map(|bar| match &bar.verdict {
        Verdict::Absent(reason) => Some(format!("{} ({}): {reason}.", bar.bar, bar.wanted)),
        Verdict::Met | Verdict::Missed => None,
    });
    absent.collect()
}

/// A figure with its unit.
fn shown(figure: &Figure) -> String {
    format!("{} {}", number(figure.value), figure.unit)
}

impl Wanted {
    /// Whether `value` clears it. A bar that is reached exactly is met, whatever the last bit of the division says.
    fn is_met(self, value: f64) -> bool {
        const EXACT: f64 = 1e-9;
        match self {
            Self::Least(limit) => value >= limit * (1.0 - EXACT),
            Self::Most(limit) | Self::Within(limit, _) => value <= limit * (1.0 + EXACT),
        }
    }

    /// `shown` makes text of the limit.
    fn text(self, shown: impl Fn(f64) -> String) -> String {
        match self {
            Self::Least(limit) => format!("≥ {}", shown(limit)),
            Self::Most(limit) => format!("≤ {}", shown(limit)),
            Self::Within(limit, _) => format!("≤ {}, or not measurable", shown(limit)),
        }
    }
}

impl Bar {
    /// The run whose figures count.
    fn run<'a>(&self, runs: &'a Runs) -> &'a Run {
        if matches!(self.than, Than::Server(_) | Than::BestPeer) {
            return &runs.compared;
        }
        // A scenario that failed at full size is not replaced by a smaller one that did not.
        let full = runs.full.as_ref().filter(|full| {
            let measured = full.figures.0.iter();
            let mut of_scenario = measured.filter(|figure| figure.scenario == self.scenario);
            of_scenario.any(|figure| figure.server == MYELIN)
                || full.info.absence(MYELIN, self.scenario).is_some()
        });
        full.unwrap_or(&runs.compared)
    }

    fn judge(&self, run: &Run) -> Judged {
        let myelin = run.wanted(self.scenario, MYELIN, self.metric);
        let mut judged = Judged {
            bar: self.what,
            wanted: match self.than {
                Than::Fixed(unit) | Than::FixedAbove(_, unit) => self
                    .wanted
                    .text(|limit| format!("{} {unit}", number(limit))),
                _ => self.wanted.text(ratio),
            },
            myelin: myelin
                .as_ref()
                .map_or_else(|_| String::new(), |&figure| shown(figure)),
            other: String::new(),
            ratio: String::new(),
            scale: run.info.scale,
            verdict: Verdict::Missed,
        };
        let met = match self.than {
            Than::Server(server) => self.against_server(&mut judged, run, myelin, server),
            Than::BestPeer => match self.best_peer(run) {
                Some(peer) => self.against_server(&mut judged, run, myelin, peer),
                None => myelin.and(Err("no peer has a figure".to_owned())),
            },
            Than::Own(other) => self.against_own(&mut judged, run, myelin, other),
            Than::Fixed(_) => myelin.map(|myelin| self.wanted.is_met(myelin.value)),
            Than::FixedAbove(other, _) => self.above(&mut judged, run, myelin, other),
        };
        judged.verdict = match met {
            Ok(true) => Verdict::Met,
            Ok(false) => Verdict::Missed,
            Err(reason) => Verdict::Absent(reason),
        };
        judged
    }

    fn best_peer<'a>(&self, run: &'a Run) -> Option<&'a str> {
        let peers = run.figures.0.iter().filter(|figure| {
            let is_peer = ![MYELIN, "floor"].contains(&figure.server.as_str());
            is_peer && figure.scenario == self.scenario && figure.metric == self.metric
        });
        let best = peers.max_by(|one, two| one.value.total_cmp(&two.value));
        best.map(|figure| figure.server.as_str())
    }

    fn against_server(
        &self,
        judged: &mut Judged,
        run: &Run,
        myelin: Result<&Figure, String>,
        server: &str,
    ) -> Result<bool, String> {
        let title = words::server(server);
        judged.other.clone_from(&title);
        let other = run.wanted(self.scenario, server, self.metric);
        if let Ok(other) = &other {
            judged.other = format!("{title}: {}", shown(other));
        }
        let (myelin, other) = (myelin?, other?);
        if other.value <= 0.0 {
            return Err(format!("the figure of {title} is 0"));
        }
        let by = myelin.value / other.value;
        judged.ratio = ratio(by);
        Ok(self.wanted.is_met(by))
    }

    fn against_own(
        &self,
        judged: &mut Judged,
        run: &Run,
        myelin: Result<&Figure, String>,
        other: &str,
    ) -> Result<bool, String> {
        judged.other = words::metric(self.scenario, other);
        let other = run.wanted(self.scenario, MYELIN, other);
        if let Ok(other) = &other {
            judged.other = format!("{}: {}", judged.other, shown(other));
        }
        let (myelin, other) = (myelin?, other?);
        if other.value > 0.0 {
            judged.ratio = ratio(myelin.value / other.value);
        }
        // Nothing by nothing is as much.
        let met = myelin.value <= other.value || self.wanted.is_met(myelin.value / other.value);
        let below = match self.wanted {
            Wanted::Within(_, resolution) => run.wanted(self.scenario, MYELIN, resolution).ok(),
            Wanted::Least(_) | Wanted::Most(_) => None,
        };
        Ok(met || below.is_some_and(|below| myelin.value - other.value <= below.value))
    }

    fn above(
        &self,
        judged: &mut Judged,
        run: &Run,
        myelin: Result<&Figure, String>,
        other: &str,
    ) -> Result<bool, String> {
        let (whole, less) = (myelin?, run.wanted(self.scenario, MYELIN, other)?);
        let above = whole.value - less.value;
        judged.myelin = format!("{} {}", number(above), whole.unit);
        judged.other = format!("{} of disk less {} of JSON", shown(whole), shown(less));
        Ok(self.wanted.is_met(above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{figures, run};

    /// The verdict of the bar that stands at `index`, with these figures alone.
    fn verdict(index: usize, lines: &[(&str, &str, &str, f64)]) -> (String, Verdict) {
        let runs = Runs {
            compared: run(figures(lines)),
            full: None,
        };
        let judged = judge(&runs).swap_remove(index);
        (judged.ratio, judged.verdict)
    }

    /// Two servers, one metric: `met` and `missed` are Myelin's figure where the other's is `other`.
    fn check(
        index: usize,
        scenario: &str,
        metric: &str,
        server: &str,
        other: f64,
        met: f64,
        missed: f64,
    ) {
        for (value, expected) in [(met, Verdict::Met), (missed, Verdict::Missed)] {
            let lines = [
                (scenario, "myelin", metric, value),
                (scenario, server, metric, other),
            ];
            assert_eq!(
                verdict(index, &lines).1,
                expected,
                "{scenario} {metric} {value}"
            );
        }
        let (_, absent) = verdict(index, &[(scenario, "myelin", metric, met)]);
        assert!(matches!(absent, Verdict::Absent(_)), "{scenario} {metric}");
        let (_, absent) = verdict(index, &[(scenario, server, metric, met)]);
        assert!(matches!(absent, Verdict::Absent(_)), "{scenario} {metric}");
    }

    /// Two figures of Myelin.
    fn check_own(
        index: usize,
        scenario: &str,
        metric: &str,
        other: &str,
        than: f64,
        met: f64,
        missed: f64,
    ) {
        for (value, expected) in [(met, Verdict::Met), (missed, Verdict::Missed)] {
            let lines = [
                (scenario, "myelin", metric, value),
                (scenario, "myelin", other, than),
            ];
            assert_eq!(
                verdict(index, &lines).1,
                expected,
                "{scenario} {metric} {value}"
            );
        }
        let (_, absent) = verdict(index, &[(scenario, "myelin", metric, met)]);
        assert!(matches!(absent, Verdict::Absent(_)), "{scenario} {metric}");
    }

    #[test]
    fn send_throughput_by_synapse() {
        check(0, "send", "throughput", "synapse", 50.0, 3_000.0, 2_999.0);
    }

    #[test]
    fn send_throughput_by_the_floor() {
        check(1, "send", "throughput", "floor", 9_000.0, 3_000.0, 2_999.0);
    }

    #[test]
    fn many_rooms_by_the_best_peer() {
        check(
            2,
            "send_many_rooms",
            "throughput",
            "dendrite",
            50.0,
            2_000.0,
            1_999.0,
        );
        let lines = [
            ("send_many_rooms", "myelin", "throughput", 2_000.0),
            ("send_many_rooms", "dendrite", "throughput", 40.0),
            ("send_many_rooms", "synapse", "throughput", 80.0),
            ("send_many_rooms", "floor", "throughput", 8_000.0),
        ];
        assert_eq!(verdict(2, &lines), ("25 ×".to_owned(), Verdict::Missed));
    }

    #[test]
    fn send_cpu() {
        check(3, "send", "cpu", "synapse", 18.0, 0.3, 0.301);
    }

    #[test]
    fn send_answer() {
        check(4, "send", "answer_p99", "synapse", 800.0, 40.0, 40.1);
    }

    #[test]
    fn send_to_sync() {
        check(5, "send", "to_sync_p50", "synapse", 600.0, 30.0, 30.1);
    }

    #[test]
    fn first_sync() {
        check(6, "initial_sync", "first", "synapse", 5_000.0, 100.0, 101.0);
    }

    #[test]
    fn nothing_new() {
        check(
            7,
            "initial_sync",
            "cpu_nothing_new",
            "synapse",
            3.0,
            0.1,
            0.11,
        );
    }

    #[test]
    fn nothing_new_does_not_grow() {
        let (scenario, metric, tenth) =
            ("initial_sync", "cpu_nothing_new", "cpu_nothing_new_tenth");
        check_own(8, scenario, metric, tenth, 0.1, 0.12, 0.121);
        check_own(8, scenario, metric, tenth, 0.0, 0.0, 0.121);
        let lines = [
            (scenario, "myelin", metric, 0.13),
            (scenario, "myelin", tenth, 0.1),
            (scenario, "myelin", "cpu_resolution", 0.05),
        ];
        assert_eq!(verdict(8, &lines).1, Verdict::Met);
    }

    #[test]
    fn memory_of_the_whole_set() {
        check(9, "all", "peak_rss", "synapse", 1_000.0, 200.0, 201.0);
    }

    #[test]
    fn memory_of_idle_clients() {
        let (_, met) = verdict(10, &[("idle", "myelin", "peak_rss", 100.0)]);
        let (_, missed) = verdict(10, &[("idle", "myelin", "peak_rss", 100.1)]);
        let (_, absent) = verdict(10, &[]);
        assert_eq!((met, missed), (Verdict::Met, Verdict::Missed));
        assert!(matches!(absent, Verdict::Absent(_)));
    }

    #[test]
    fn disk_of_a_message() {
        check_own(
            11,
            "send",
            "disk_per_event",
            "event_json",
            1_400.0,
            2_100.0,
            2_101.0,
        );
    }

    #[test]
    fn disk_of_state() {
        check_own(
            12,
            "state_churn",
            "disk_per_state_event",
            "event_json",
            600.0,
            1_624.0,
            1_625.0,
        );
    }

    #[test]
    fn fan_out() {
        check(13, "fan_out", "to_sync_p50", "synapse", 900.0, 90.0, 90.1);
    }

    #[test]
    fn big_room() {
        check_own(14, "big_room", "cpu", "cpu_small_room", 0.1, 0.2, 0.21);
    }

    #[test]
    fn bars_on_myelin_alone_prefer_the_full_size() {
        let mut full = run(figures(&[("idle", "myelin", "peak_rss", 130.0)]));
        full.info.scale = 1.0;
        let runs = Runs {
            compared: run(figures(&[("idle", "myelin", "peak_rss", 60.0)])),
            full: Some(full),
        };
        let judged = judge(&runs).swap_remove(10);
        assert_eq!(judged.verdict, Verdict::Missed);
        assert_eq!((judged.scale, judged.myelin.as_str()), (1.0, "130 MiB"));
    }

    #[test]
    fn a_smaller_run_does_not_stand_in_for_a_failure_at_full_size() {
        let compared = || run(figures(&[("idle", "myelin", "peak_rss", 60.0)]));
        let mut full = run(figures(&[]));
        let outcome = |full: &Run| {
            let full = Some(full.clone());
            let runs = Runs {
                compared: compared(),
                full,
            };
            judge(&runs).swap_remove(10).verdict
        };
        assert_eq!(outcome(&full), Verdict::Met);
        full.info.absences.push(crate::report::run_info::Absence {
            server: "myelin".to_owned(),
            scenario: Some("idle".to_owned()),
            reason: "it broke off".to_owned(),
        });
        assert_eq!(
            outcome(&full),
            Verdict::Absent("Myelin is absent: it broke off".to_owned())
        );
    }

    #[test]
    fn an_absent_peer_is_absent_with_its_reason() {
        let mut compared = run(figures(&[("send", "myelin", "throughput", 3_000.0)]));
        compared
            .info
            .absences
            .push(crate::report::run_info::Absence {
                server: "synapse".to_owned(),
                scenario: None,
                reason: "it could not be installed".to_owned(),
            });
        let judged = judge(&Runs {
            compared,
            full: None,
        });
        let reason = "Synapse is absent: it could not be installed";
        assert_eq!(judged[0].verdict, Verdict::Absent(reason.to_owned()));
        let wanted = format!("Events sent per second, one room (≥ 60 ×): {reason}.");
        assert_eq!(absences(&judged)[0], wanted);
    }
}
