//! TLS, beside plain HTTP.

use std::net::SocketAddr;

use myelin_testkit::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_server_answers_over_tls() {
    let certified = rcgen::generate_simple_self_signed(vec!["test.example".to_owned()])
        .expect("a certificate can be made");
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    let certificate = dir.path().join("chain.pem");
    let key = dir.path().join("key.pem");
    std::fs::write(&certificate, certified.cert.pem()).expect("a file can be written");
    std::fs::write(&key, certified.signing_key.serialize_pem()).expect("a file can be written");

    let mut server = TestServer::builder()
        .configure(|config| {
            config.listen.tls_addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
            config.listen.tls_certificate = Some(certificate);
            config.listen.tls_private_key = Some(key);
        })
        .start()
        .await;
    let address = server.server().tls_addresses()[0];
    let root = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes())
        .expect("our certificate is one");
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .resolve("test.example", address)
        .build()
        .expect("a client can be built");
    let url = format!(
        "https://test.example:{}/_matrix/client/versions",
        address.port()
    );
    let versions = client.get(&url).send().await.expect("the server answers");
    assert_eq!(versions.status(), 200);
    assert_eq!(versions.version(), reqwest::Version::HTTP_2);
    assert!(server.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_certificate_is_named() {
    let mut config = myelin_config::Config::for_server(ruma::owned_server_name!("test.example"));
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    config.server.data_dir = dir.path().join("data");
    config.listen.addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.listen.tls_addresses = config.listen.addresses.clone();
    config.listen.tls_certificate = Some(dir.path().join("chain.pem"));
    config.listen.tls_private_key = Some(dir.path().join("key.pem"));
    let life = myelin_runtime::Lifecycle::new(std::time::Duration::from_secs(1));
    let started = myelin_homeserver::Server::start(
        config,
        None,
        myelin_homeserver::Surroundings::default(),
        life.tasks(),
    )
    .await;
    let error = started.expect_err("there is no certificate").to_string();
    assert!(error.contains("chain.pem"), "{error}");
}
