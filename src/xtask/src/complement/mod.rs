//! Complement, the protocol tests that all Matrix homeservers share: the names of its tests, our committed results, and
//! the check that the two belong together. `complement/README.md` tells the whole procedure.

pub(crate) mod record;
pub(crate) mod suite;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Outcome},
    workspace,
};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It held.
    Pass,
    /// It did not hold, or was cut off.
    Fail,
    /// It left itself out.
    Skip,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
        })
    }
}

/// A test or subtest: its package, without what all packages begin with, and its name, with those of its parents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    pub(crate) package: String,
    pub(crate) name: String,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package, self.name)
    }
}

/// How each test ended, sorted by package and name.
pub(crate) type Results = BTreeMap<Test, Action>;

/// A line of the record. The order of the fields is the order in which they are written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Line {
    package: String,
    test: String,
    action: Action,
}

/// A top-level test of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) test: Test,
    /// The part of the server that it is about.
    pub(crate) area: String,
}

fn record_path() -> PathBuf {
    workspace::root().join("complement/results.jsonl")
}

/// The suite's top-level tests, from `complement/tests.tsv`.
pub(crate) fn known() -> Outcome<Vec<Known>> {
    parse_known(&workspace::read(
        &workspace::root().join("complement/tests.tsv"),
    )?)
}

fn parse_known(text: &str) -> Outcome<Vec<Known>> {
    text.lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            match (cells.next(), cells.next(), cells.next(), cells.next()) {
                (Some(package), Some(name), Some(area), None) => Ok(Known {
                    test: Test { package, name },
                    area,
                }),
                _ => Err(Failure::new(format!(
                    "complement/tests.tsv: `{line}` is not package, test, area"
                ))),
            }
        })
        .collect()
}

/// Reads a record, and insists on its form: one object a line with exactly our three fields, sorted, nothing twice.
fn parse_record(text: &str) -> Outcome<Results> {
    let mut results = Results::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| {
            Failure::new(format!(
                "complement/results.jsonl:{}: {what}: {line}",
                at + 1
            ))
        };
        let Line {
            package,
            test,
            action,
        } = serde_json::from_str(line).map_err(|cause| wrong(&cause.to_string()))?;
        let test = Test {
            package,
            name: test,
        };
        if results
            .last_key_value()
            .is_some_and(|(last, _)| *last >= test)
        {
            return Err(wrong("is not sorted by package and name, or stands twice"));
        }
        results.insert(test, action);
    }
    if print_record(&results) != text {
        return Err(Failure::new(
            "complement/results.jsonl: is not written as `xtask complement-record` writes it",
        ));
    }
    Ok(results)
}

fn print_record(results: &Results) -> String {
    let mut text = String::new();
    for (test, action) in results {
        let line = Line {
            package: test.package.clone(),
            test: test.name.clone(),
            action: *action,
        };
        text += &serde_json::to_string(&line).expect("strings and an enum always have a JSON form");
        text.push('\n');
    }
    text
}

/// Where each area stands: how many of its top-level tests pass, of how many.
fn areas(known: &[Known], results: &Results) -> BTreeMap<String, (usize, usize)> {
    let mut areas = BTreeMap::new();
    for Known { test, area } in known {
        let (passed, all) = areas.entry(area.clone()).or_insert((0, 0));
        *all += 1;
        if results.get(test) == Some(&Action::Pass) {
            *passed += 1;
        }
    }
    areas
}

/// Checks that the record is well formed and has a line for every top-level test, and prints where each area stands.
pub(crate) fn check() -> Outcome {
    let known = known()?;
    let results = parse_record(&workspace::read(&record_path())?)?;
    let missing: Vec<String> = known
        .iter()
        .filter(|known| !results.contains_key(&known.test))
        .map(|known| known.test.to_string())
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!(
            "complement/results.jsonl: says nothing of {}: {}",
            missing.len(),
            missing.join(", ")
        )));
    }
    print_areas(&known, &results);
    Ok(())
}

fn print_areas(known: &[Known], results: &Results) {
    let areas = areas(known, results);
    let passed: usize = areas.values().map(|(passed, _)| passed).sum();
    println!("{passed} of {} top-level tests pass:", known.len());
    for (area, (passed, all)) in areas {
        println!("  {area}: {passed} of {all}");
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Results, Test, areas, parse_known, parse_record, print_record};

    const RECORD: &str = concat!(
        r#"{"Package":"csapi","Test":"TestA","Action":"pass"}"#,
        "\n",
        r#"{"Package":"csapi","Test":"TestA/b","Action":"skip"}"#,
        "\n",
        r#"{"Package":"tests","Test":"TestA","Action":"fail"}"#,
        "\n",
    );

    #[test]
    fn a_record_is_read_and_written_alike() {
        let results = parse_record(RECORD).expect("the sample is a record");
        assert_eq!(results.len(), 3);
        assert_eq!(print_record(&results), RECORD);
    }

    #[test]
    fn a_record_of_another_form_is_refused() {
        let lines: Vec<&str> = RECORD.lines().collect();
        let unsorted = format!("{}\n{}\n", lines[1], lines[0]);
        let twice = format!("{}\n{}\n", lines[0], lines[0]);
        let more = RECORD.replace("\"Action\":\"skip\"", "\"Action\":\"skip\",\"Elapsed\":1");
        let spaced = RECORD.replace("\":\"", "\": \"");
        let unknown = RECORD.replace("skip", "run");
        for text in [unsorted, twice, more, spaced, unknown] {
            assert!(parse_record(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn areas_count_top_level_tests() {
        let known = parse_known("package\ttest\tarea\ncsapi\tTestA\trooms\ntests\tTestA\trooms\n")
            .expect("the sample is a table");
        let mut results = Results::new();
        results.insert(
            Test {
                package: "csapi".to_owned(),
                name: "TestA".to_owned(),
            },
            Action::Pass,
        );
        assert_eq!(areas(&known, &results).get("rooms"), Some(&(1, 2)));
    }

    #[test]
    fn the_list_of_tests_has_its_form() {
        assert!(parse_known("package\ttest\tarea\ncsapi\tTestA\n").is_err());
        let known = super::known().expect("complement/tests.tsv has its form");
        assert_eq!(known.len(), 210);
    }
}
