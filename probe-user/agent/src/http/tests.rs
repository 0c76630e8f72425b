use http::header::ACCEPT;

use super::*;

#[test]
fn paths_are_found_as_mesos_finds_them() {
    let found = [
        ("/state", Some(Route::State)),
        ("/slave(1)/state", Some(Route::State)),
        ("/slave%281%29/state/", Some(Route::State)),
        ("/api/v1/operator", Some(Route::Operator)),
        ("/slave(1)/api/v1/executor", Some(Route::Executor)),
        ("/metrics/snapshot", Some(Route::Metrics)),
        ("/slave(1)x/state", None),
        ("/slave(1)", None),
        ("/", None),
        ("/../state", None),
        ("/nothing/at/all", None),
    ];
    for (path, route) in found {
        assert_eq!(find(path), route, "{path}");
    }
}

#[test]
fn encodings_are_chosen_as_mesos_chooses_them() {
    let accepted = |value: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        accepted_encoding(&headers).map_err(|it| it.status().as_u16())
    };
    assert_eq!(accepted(None), Ok(Encoding::Json));
    assert_eq!(accepted(Some("*/*")), Ok(Encoding::Json));
    assert_eq!(accepted(Some("application/x-protobuf")), Ok(Encoding::Protobuf));
    assert_eq!(accepted(Some("application/x-protobuf, application/json;q=0.1")), Ok(Encoding::Json));
    assert_eq!(accepted(Some("text/html")), Err(406));
}

#[test]
fn queries_are_decoded() {
    let request = Request::builder().uri("/files/read?path=%2Fa%20b%2Bc+d&offset=&flag").body(()).unwrap();
    let query = Query::of(&request);
    assert_eq!(
        (query.get("path"), query.get("offset"), query.get("flag"), query.get("none")),
        (Some("/a b+c d"), Some(""), Some(""), None)
    );
    assert_eq!(files::percent_decode("%zz%4"), "%zz%4");
}

#[tokio::test]
async fn a_page_gets_its_answer_in_a_call_and_a_long_one_packed() {
    let query = Query(vec![("jsonp".to_owned(), "app.cb".to_owned())]);
    let answer = classic(&query, &serde_json::json!({"a": 1}));
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/javascript");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "app.cb({\"a\":1});");
    let hostile = Query(vec![("jsonp".to_owned(), "alert(1)//".to_owned())]);
    assert_eq!(classic(&hostile, &serde_json::json!({})).headers()[CONTENT_TYPE], "application/json");
    let long = compressed(classic(&Query::default(), &serde_json::json!("x".repeat(2000)))).await;
    assert_eq!(long.headers()[http::header::CONTENT_ENCODING], "gzip");
    let short = compressed(classic(&Query::default(), &serde_json::json!("x"))).await;
    assert!(!short.headers().contains_key(http::header::CONTENT_ENCODING));
}
