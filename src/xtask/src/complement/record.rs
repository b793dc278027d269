//! `complement-record`: what a run of the suite says against what is committed. The record only gets better: a test that
//! passed is not recorded as anything else unless somebody says why.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{Action, Results, Test, known, parse_record, print_areas, print_record, record_path};
use crate::{
    failure::{Failure, Outcome},
    workspace,
};

/// A line of `go test -json`. Other fields (time, output, elapsed) do not concern us.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    #[serde(default)]
    package: String,
    #[serde(default)]
    test: Option<String>,
}

/// Compares the run in `file` with the record, prints the difference and rewrites the record.
pub(crate) fn run(file: &Path, reason: Option<&str>, prune: bool) -> Outcome {
    let ran = parse_run(&workspace::read(file)?);
    if ran.is_empty() {
        return Err(Failure::new(format!(
            "{} holds no result of a test; is it what `go test -json` printed?",
            file.display()
        )));
    }
    let path = record_path();
    let mut results = if path.exists() {
        parse_record(&workspace::read(&path)?)?
    } else {
        Results::new()
    };
    let change = Change::between(&results, &ran);
    change.print();
    if !change.worse.is_empty() && reason.is_none() {
        return Err(Failure::new(format!(
            "{} test(s) that passed do not any more. Nothing was recorded; if that is as it should be, say why with --reason",
            change.worse.len()
        )));
    }
    if prune {
        for test in &change.unseen {
            results.remove(test);
        }
    }
    results.extend(ran);
    workspace::write(&path, &print_record(&results))?;
    print_areas(&known()?, &results);
    if let Some(reason) = reason.filter(|_| !change.worse.is_empty()) {
        println!(
            "\nSay in the commit message why {} test(s) got worse:\n\n    {reason}",
            change.worse.len()
        );
    }
    Ok(())
}

/// The last word of a run on each of its tests. A test that began and has no last word was cut off, and that is a failure.
fn parse_run(text: &str) -> Results {
    let mut results = Results::new();
    for line in text.lines() {
        // Between the events stand lines of the build and of programs that the suite starts.
        let Ok(event) = serde_json::from_str::<Event>(line) else {
            continue;
        };
        let Some(name) = event.test else { continue };
        let test = Test {
            package: short_package(&event.package).to_owned(),
            name,
        };
        match event.action.as_str() {
            "run" => {
                results.entry(test).or_insert(Action::Fail);
            }
            "pass" => {
                results.insert(test, Action::Pass);
            }
            "fail" => {
                results.insert(test, Action::Fail);
            }
            "skip" => {
                results.insert(test, Action::Skip);
            }
            _ => {}
        }
    }
    results
}

/// The package as the record names it: what follows the suite's `tests` directory, or `tests` for that directory itself.
fn short_package(path: &str) -> &str {
    match path.rsplit_once("/tests/") {
        Some((_, rest)) => rest,
        None => path.rsplit('/').next().unwrap_or(path),
    }
}

/// What a run changes in the record.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    /// Passes now: before it did not, or was not known.
    better: Vec<(Test, Option<Action>)>,
    /// Passed before.
    worse: Vec<(Test, Action)>,
    /// Neither: from fail to skip or back, or new and not passing.
    other: Vec<(Test, Option<Action>, Action)>,
    /// Recorded, not seen in the run, although its top-level test was: not reached, not asked for, or no longer there.
    unseen: Vec<Test>,
    same: usize,
}

impl Change {
    fn between(recorded: &Results, ran: &Results) -> Self {
        let mut change = Self::default();
        for (test, now) in ran {
            match (recorded.get(test).copied(), *now) {
                (before, now) if before == Some(now) => change.same += 1,
                (before, Action::Pass) => change.better.push((test.clone(), before)),
                (Some(Action::Pass), now) => change.worse.push((test.clone(), now)),
                (before, now) => change.other.push((test.clone(), before, now)),
            }
        }
        change.unseen = recorded
            .keys()
            .filter(|test| {
                let parent = test.name.split_once('/').map(|(parent, _)| Test {
                    package: test.package.clone(),
                    name: parent.to_owned(),
                });
                parent.is_some_and(|parent| ran.contains_key(&parent)) && !ran.contains_key(test)
            })
            .cloned()
            .collect();
        change
    }

    fn print(&self) {
        let before = |action: &Option<Action>| action.map_or("new".to_owned(), |a| a.to_string());
        for (test, was) in &self.better {
            println!("better  {test} ({} -> pass)", before(was));
        }
        for (test, was, now) in &self.other {
            println!("changed {test} ({} -> {now})", before(was));
        }
        for (test, now) in &self.worse {
            println!("WORSE   {test} (pass -> {now})");
        }
        let mut unseen = BTreeMap::<&str, usize>::new();
        for test in &self.unseen {
            let parent = test.name.split('/').next().unwrap_or(&test.name);
            *unseen.entry(parent).or_default() += 1;
        }
        for (parent, count) in unseen {
            println!("unseen  {count} recorded subtest(s) of {parent} did not appear in this run");
        }
        println!(
            "{} better, {} worse, {} otherwise changed, {} as before",
            self.better.len(),
            self.worse.len(),
            self.other.len(),
            self.same
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Change, Results, Test, parse_run, short_package};

    const RUN: &str = r#"{"Time":"2026-01-01T00:00:00Z","Action":"start","Package":"example.org/complement/tests/csapi"}
{"Time":"2026-01-01T00:00:00Z","Action":"output","Package":"example.org/complement/tests/csapi","Output":"a line\n"}
not JSON at all
{"Time":"2026-01-01T00:00:01Z","Action":"run","Package":"example.org/complement/tests/csapi","Test":"TestLogin"}
{"Time":"2026-01-01T00:00:01Z","Action":"run","Package":"example.org/complement/tests/csapi","Test":"TestLogin/parallel/a"}
{"Time":"2026-01-01T00:00:01Z","Action":"output","Package":"example.org/complement/tests/csapi","Test":"TestLogin","Output":"=== RUN\n"}
{"Time":"2026-01-01T00:00:02Z","Action":"pass","Package":"example.org/complement/tests/csapi","Test":"TestLogin/parallel/a","Elapsed":0.1}
{"Time":"2026-01-01T00:00:02Z","Action":"fail","Package":"example.org/complement/tests/csapi","Test":"TestLogin","Elapsed":1.1}
{"Time":"2026-01-01T00:00:02Z","Action":"run","Package":"example.org/complement/tests/csapi","Test":"TestSync"}
{"Time":"2026-01-01T00:00:03Z","Action":"fail","Package":"example.org/complement/tests/csapi","Elapsed":2}
{"Time":"2026-01-01T00:00:03Z","Action":"run","Package":"example.org/complement/tests","Test":"TestACLs"}
{"Time":"2026-01-01T00:00:03Z","Action":"skip","Package":"example.org/complement/tests","Test":"TestACLs","Elapsed":0}
"#;

    fn test(package: &str, name: &str) -> Test {
        Test {
            package: package.to_owned(),
            name: name.to_owned(),
        }
    }

    fn results(entries: &[(&str, Action)]) -> Results {
        entries
            .iter()
            .map(|(name, action)| (test("csapi", name), *action))
            .collect()
    }

    #[test]
    fn the_last_word_on_each_test_counts() {
        let ran = parse_run(RUN);
        let expected: Results = [
            (test("csapi", "TestLogin"), Action::Fail),
            (test("csapi", "TestLogin/parallel/a"), Action::Pass),
            // Began and was never heard of again: the run broke off.
            (test("csapi", "TestSync"), Action::Fail),
            (test("tests", "TestACLs"), Action::Skip),
        ]
        .into();
        assert_eq!(ran, expected);
    }

    #[test]
    fn packages_are_named_shortly() {
        assert_eq!(short_package("example.org/complement/tests"), "tests");
        assert_eq!(short_package("example.org/complement/tests/csapi"), "csapi");
        assert_eq!(
            short_package("example.org/complement/tests/msc3902"),
            "msc3902"
        );
    }

    #[test]
    fn what_passes_now_is_better_and_what_passed_is_worse() {
        use Action::{Fail, Pass, Skip};
        let recorded = results(&[
            ("TestA", Pass),
            ("TestB", Fail),
            ("TestC", Pass),
            ("TestD", Fail),
            ("TestF", Pass),
        ]);
        let ran = results(&[
            ("TestA", Pass),
            ("TestB", Pass),
            ("TestC", Skip),
            ("TestD", Skip),
            ("TestE", Pass),
        ]);
        let change = Change::between(&recorded, &ran);
        assert_eq!(
            change,
            Change {
                better: vec![
                    (test("csapi", "TestB"), Some(Fail)),
                    (test("csapi", "TestE"), None)
                ],
                worse: vec![(test("csapi", "TestC"), Skip)],
                other: vec![(test("csapi", "TestD"), Some(Fail), Skip)],
                unseen: vec![],
                same: 1,
            }
        );
    }

    #[test]
    fn recorded_subtests_of_a_test_that_ran_are_noticed_when_missing() {
        use Action::Pass;
        let recorded = results(&[("TestA", Pass), ("TestA/b", Pass), ("TestC/d", Pass)]);
        let ran = results(&[("TestA", Pass)]);
        assert_eq!(
            Change::between(&recorded, &ran).unseen,
            [test("csapi", "TestA/b")]
        );
    }
}
