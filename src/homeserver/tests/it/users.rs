//! `myelin user …`, with and without a running server.

use myelin_testkit::{PASSWORD, TestServer};
use serde_json::json;

use crate::process::Place;

#[test]
fn users_are_managed_without_a_server() {
    let place = Place::new();
    drop(place.first_start(&["--server-name", "example.org"]));

    let created = place
        .run_with(&["user", "create", "alice"], "a good password\n")
        .ok();
    assert!(created.contains("@alice:example.org"), "{created}");
    let again = place
        .run_with(&["user", "create", "alice"], "a good password\n")
        .failed();
    assert!(!again.contains("a good password"), "{again}");
    let short = place
        .run_with(&["user", "create", "bob"], "short\n")
        .failed();
    assert!(!short.is_empty());
    let foreign = place
        .run_with(&["user", "create", "@bob:example.com"], "a good password\n")
        .failed();
    assert!(foreign.contains("not a user of example.org"), "{foreign}");

    let generated = place
        .run(&[
            "user",
            "create",
            "@admin:example.org",
            "--admin",
            "--generate-password",
        ])
        .ok();
    let password = generated
        .lines()
        .find_map(|line| line.strip_prefix("Password: "));
    assert_eq!(password.map(str::len), Some(24), "{generated}");

    place.run(&["user", "deactivate", "alice"]).ok();
    let listed = place.run(&["user", "list"]).ok();
    assert!(
        listed.contains("@alice:example.org  deactivated"),
        "{listed}"
    );
    assert!(listed.contains("@admin:example.org  admin"), "{listed}");
    let json = place.run(&["user", "list", "--json"]).ok();
    assert_eq!(json.lines().count(), 2, "{json}");
    let nobody = place.run(&["user", "deactivate", "nobody"]).failed();
    assert!(
        nobody.contains("there is no user @nobody:example.org"),
        "{nobody}"
    );
}

/// Runs a command on the data of a server in this process. The program blocks, so it gets a thread.
pub(crate) async fn on(
    server: &TestServer,
    arguments: &[&str],
    stdin: &str,
) -> crate::process::Ran {
    let data_dir = server.data_dir().display().to_string();
    let name = server.config().server.name.to_string();
    let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    all.extend([
        "--data-dir".to_owned(),
        data_dir,
        "--server-name".to_owned(),
        name,
    ]);
    let stdin = stdin.to_owned();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = all.iter().map(String::as_str).collect();
        Place::new().run_with(&arguments, &stdin)
    })
    .await
    .expect("the command does not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_managed_while_the_server_runs() {
    let server = TestServer::builder()
        .configure(|config| {
            config.registration.mode = myelin_config::RegistrationMode::Closed;
        })
        .start()
        .await;
    on(&server, &["user", "create", "alice"], PASSWORD)
        .await
        .ok();
    let alice = server.login("alice").await;
    let room = alice.create_room(&json!({ "preset": "public_chat" })).await;
    on(&server, &["user", "create", "bob"], PASSWORD).await.ok();
    let bob = server.login("bob").await;
    bob.join(&room).await.ok();

    let changed = on(
        &server,
        &["user", "set-password", "alice"],
        "another password",
    )
    .await
    .ok();
    assert!(changed.contains("1 devices logged out"), "{changed}");
    let whoami = "/_matrix/client/v3/account/whoami";
    alice.get(whoami).await.refused(401, "M_UNKNOWN_TOKEN");

    on(&server, &["user", "deactivate", "bob"], "").await.ok();
    bob.get(whoami).await.refused(401, "M_UNKNOWN_TOKEN");
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "another password",
    });
    let session = server
        .anonymous()
        .post("/_matrix/client/v3/login", &login)
        .await
        .ok();
    let token = session["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let alice = server
        .anonymous()
        .with_session(server.user_id("alice"), "X".to_owned(), token);
    let members = alice
        .get(&format!(
            "/_matrix/client/v3/rooms/{}/joined_members",
            myelin_testkit::encoded(&room)
        ))
        .await
        .ok();
    let joined = members["joined"].as_object().expect("an object");
    assert_eq!(
        joined.keys().collect::<Vec<_>>(),
        [&server.user_id("alice")]
    );
}
