//! First start, settings, signals.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::process::Place;

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).expect("the file exists");
    metadata.permissions().mode() & 0o777
}

#[test]
fn the_first_start_needs_nothing_and_a_signal_ends_it_well() {
    let place = Place::new();
    let serving = place.first_start(&[]);
    assert!(
        serving.greeting.contains("localhost"),
        "{}",
        serving.greeting
    );
    assert!(serving.greeting.contains("myelin user create alice"));
    assert_eq!(mode(&place.join("myelin.toml")), 0o600);
    assert_eq!(mode(&place.join("myelin-data")), 0o700);
    assert_eq!(mode(&place.join("myelin-data/signing.key")), 0o600);
    assert_eq!(mode(&place.join("myelin-data/control.sock")), 0o600);

    let health = place.run(&["health"]).ok();
    assert!(health.contains("\"ok\""), "{health}");

    let ended = serving.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("SIGTERM"), "{}", ended.stderr);
    assert!(!place.join("myelin-data/control.sock").exists());
    let refused = place.run(&["health"]).failed();
    assert!(refused.contains("no server is running"), "{refused}");
}

#[test]
fn the_first_start_takes_the_name_from_the_command_line() {
    let place = Place::new();
    let serving = place.first_start(&["--server-name", "example.org"]);
    let settings = fs::read_to_string(place.join("myelin.toml")).expect("settings were written");
    assert!(settings.contains("name = \"example.org\""), "{settings}");
    assert_eq!(serving.terminate().code, Some(0));

    let other = place
        .run(&["serve", "--server-name", "example.com"])
        .failed();
    assert!(other.contains("belong to example.org"), "{other}");
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let place = Place::new();
    let serving = place.first_start(&[]);
    let second = place.run(&["serve", "--listen", "127.0.0.1:0"]).failed();
    assert!(second.contains("in use by another process"), "{second}");
    // The first one still hears its operator.
    place.run(&["health"]).ok();
    drop(serving);
}

#[test]
fn generated_settings_are_valid() {
    let place = Place::new();
    let generated = place
        .run(&["generate-config", "--server-name", "example.net"])
        .ok();
    fs::write(place.join("myelin.toml"), generated).expect("a file can be written");
    let checked = place.run(&["check-config"]).ok();
    assert!(checked.contains("example.net"), "{checked}");
}

#[test]
fn wrong_settings_are_named() {
    let place = Place::new();
    let missing = place.run(&["check-config"]).failed();
    assert!(missing.contains("myelin.toml"), "{missing}");

    fs::write(
        place.join("myelin.toml"),
        "[server]\nnaem = \"example.org\"\n",
    )
    .expect("a file can be written");
    let unknown = place.run(&["check-config"]).failed();
    assert!(unknown.contains("server.naem"), "{unknown}");
    assert!(unknown.contains("did you mean server.name?"), "{unknown}");

    fs::write(
        place.join("myelin.toml"),
        "[server]\nname = \"example.org\"\n",
    )
    .expect("a file can be written");
    let bad = place
        .run(&["check-config", "--set", "accounts.password_min_length=0"])
        .failed();
    assert!(bad.contains("accounts.password_min_length"), "{bad}");
    let filter = place
        .run(&["check-config", "--set", "log.filter=loud"])
        .failed();
    assert!(filter.contains("log.filter"), "{filter}");
}

#[test]
fn the_environment_alone_can_configure_a_server() {
    let place = Place::new();
    let checked = place
        .command(&["check-config"])
        .env("MYELIN_SERVER__NAME", "example.org")
        .output()
        .expect("the program runs");
    assert!(checked.status.success());
    let refused = place
        .command(&["check-config"])
        .env("MYELIN_SERVER__NAME", "example.org")
        .env("MYELIN_SERVER__DATADIR", "x")
        .output()
        .expect("the program runs");
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("environment"), "{error}");
}
