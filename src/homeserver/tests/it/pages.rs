//! What a browser, a monitor and an operator's tools see.

use myelin_testkit::{Reply, TestServer};

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.headers.get(name).map_or("", |value| {
        value.to_str().expect("our headers are plain text")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_landing_page_and_its_parts_are_there() {
    let server = TestServer::start().await;
    let browser = server.anonymous();
    let page = browser.get("/").await;
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    assert!(header(&page, "content-security-policy").contains("default-src 'none'"));
    assert_eq!(header(&page, "x-content-type-options"), "nosniff");
    let html = page.ok();
    let html = html.as_str().expect("HTML is not JSON");
    assert!(html.contains("test.example"), "{html}");
    let style = browser.get("/style.css").await;
    assert_eq!(header(&style, "content-type"), "text/css; charset=utf-8");
    let icon = browser.get("/favicon.svg").await;
    assert_eq!(header(&icon, "content-type"), "image/svg+xml");
    browser
        .get("/nothing/here")
        .await
        .refused(404, "M_UNRECOGNIZED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_how_the_server_is() {
    let server = TestServer::start().await;
    let report = server.health().await;
    assert_eq!(report["status"], "ok", "{report}");
    assert!(report["commit_ms"].is_u64(), "{report}");
    assert_eq!(report["problems"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_for_this_machine_and_hold_no_secrets() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let token = alice.access_token().expect("logged in").to_owned();
    alice.get("/_matrix/client/v3/account/whoami").await.ok();
    let metrics = server.anonymous().get("/metrics").await.ok();
    let metrics = metrics.as_str().expect("metrics are not JSON");
    for name in [
        "http_request_seconds",
        "http_requests_total",
        "store_batches_total",
        "myelin_info",
    ] {
        assert!(metrics.contains(name), "no {name} in {metrics}");
    }
    assert!(metrics.contains("/_matrix/client/v3/account/whoami"));
    assert!(!metrics.contains(&token));

    let proxied = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client can be built")
        .get(format!("{}/metrics", server.url()))
        .header("x-forwarded-for", "203.0.113.5")
        .send()
        .await
        .expect("the server answers");
    assert_eq!(proxied.status(), 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_can_have_an_address_of_their_own() {
    let server = TestServer::builder()
        .configure(|config| {
            config.metrics.address = Some(([127, 0, 0, 1], 0).into());
        })
        .start()
        .await;
    let address = server.server().metrics_address().expect("it was asked for");
    let metrics = server.anonymous().at(format!("http://{address}"));
    metrics.get("/metrics").await.ok();
    server
        .anonymous()
        .get("/metrics")
        .await
        .refused(404, "M_UNRECOGNIZED");
}
