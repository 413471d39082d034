//! Negotiation, requests and errors, row by row.

use super::*;

fn connected() -> Session {
    let mut session = Session::default();
    assert!(matches!(session.next_output(), Some(Output::Reply(_))));
    session
}

fn negotiated(enable: Value) -> Session {
    let mut session = connected();
    let negotiation = json!({"execute": "qmp_capabilities", "arguments": {"enable": enable}});
    assert_eq!(said(&mut session, negotiation.to_string()), [json!({"return": {}})]);
    session
}

fn parsed(line: &[u8]) -> Value {
    assert!(line.ends_with(b"\r\n"));
    let mut parser = Parser::default();
    parser.feed(line);
    parser.next().expect("it is a whole line").expect("the session writes JSON")
}

/// What comes back for `input` when it leads to replies only.
fn said(session: &mut Session, input: impl AsRef<[u8]>) -> Vec<Value> {
    session.feed(input.as_ref());
    let outputs = std::iter::from_fn(|| session.next_output());
    let replies = outputs.map(|output| match output {
        Output::Reply(line) => parsed(&line),
        Output::Request(command) => panic!("{command:?} was to be refused"),
    });
    replies.collect()
}

fn error(class: &str, desc: &str) -> Value {
    json!({"error": {"class": class, "desc": desc}})
}

fn generic(desc: &str) -> Value {
    error("GenericError", desc)
}

#[test]
fn the_greeting_names_version_and_capabilities() {
    let Some(Output::Reply(greeting)) = Session::default().next_output() else { panic!("it greets first") };
    let greeting = parsed(&greeting);
    assert_eq!(greeting["QMP"]["capabilities"], json!(["oob"]));
    assert!(greeting["QMP"]["version"]["qemu"]["major"].is_u64());
    let package = greeting["QMP"]["version"]["package"].as_str();
    assert_eq!(package, Some(concat!("ringyard-", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn nothing_works_before_negotiation() {
    let mut session = connected();
    let expected = error("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
    let replies = said(&mut session, r#"{"execute": "query-version"}{"execute": "nope"}"#);
    assert_eq!(replies, [expected.clone(), expected]);
    assert_eq!(session.event("X", None, Duration::ZERO), None);
}

#[test]
fn a_failed_negotiation_leaves_it_open() {
    let mut session = connected();
    for (arguments, desc) in [
        (json!({"enable": ["foo"]}), "Parameter 'null' does not accept value 'foo'"),
        (json!({"enable": "oob"}), "Invalid parameter type for 'enable', expected: array"),
        (json!({"x": 1}), "Parameter 'x' is unexpected"),
    ] {
        let request = json!({"execute": "qmp_capabilities", "arguments": arguments});
        assert_eq!(said(&mut session, request.to_string()), [generic(desc)]);
    }
    assert_eq!(said(&mut session, r#"{"execute":"qmp_capabilities"}"#), [json!({"return": {}})]);
}

#[test]
fn a_second_negotiation_is_refused() {
    let mut session = negotiated(json!([]));
    let desc = "Capabilities negotiation is already complete, command ignored";
    let replies = said(&mut session, r#"{"execute":"qmp_capabilities"}"#);
    assert_eq!(replies, [error("CommandNotFound", desc)]);
    let wrong = r#"{"execute":"qmp_capabilities","arguments":{"enable":["foo"]}}"#;
    assert_eq!(said(&mut session, wrong), [generic("Parameter 'null' does not accept value 'foo'")]);
}

#[test]
fn a_malformed_request_says_what_is_wrong() {
    let mut session = negotiated(json!([]));
    for (input, desc) in [
        ("[]", "QMP input must be a JSON object"),
        ("\"x\"", "QMP input must be a JSON object"),
        ("1\n", "QMP input must be a JSON object"),
        ("null\n", "QMP input must be a JSON object"),
        ("true\n", "QMP input must be a JSON object"),
        ("{}", "QMP input lacks member 'execute'"),
        ("{\"execute\": 1}", "QMP input member 'execute' must be a string"),
        ("{\"execute\": \"quit\", \"foo\": 1}", "QMP input member 'foo' is unexpected"),
        ("{\"execute\": \"quit\", \"arguments\": []}", "QMP input member 'arguments' must be an object"),
        ("{\"exec-oob\": \"quit\"}", "QMP input member 'exec-oob' is unexpected"),
        ("{\"execute\": nul}", "JSON parse error, invalid keyword 'nul'"),
        ("{\"execute\" 1}", "JSON parse error, missing : in object pair"),
    ] {
        assert_eq!(said(&mut session, input), [generic(desc)], "{input}");
    }
    let expected = error("CommandNotFound", "The command nope has not been found");
    assert_eq!(said(&mut session, r#"{"execute": "nope"}"#), [expected]);
}

#[test]
fn out_of_band_needs_the_capability_and_a_command_that_allows_it() {
    let mut session = negotiated(json!(["oob"]));
    let expected = generic("The command query-version does not support OOB");
    assert_eq!(said(&mut session, r#"{"exec-oob": "query-version"}"#), [expected]);
    let expected = error("CommandNotFound", "The command nope has not been found");
    assert_eq!(said(&mut session, r#"{"exec-oob": "nope"}"#), [expected]);
    let expected = generic("QMP input member 'execute' clashes with 'exec-oob'");
    assert_eq!(said(&mut session, r#"{"execute": "quit", "exec-oob": "quit"}"#), [expected]);
    let expected = generic("QMP input member 'exec-oob' must be a string");
    assert_eq!(said(&mut session, r#"{"exec-oob": 1}"#), [expected]);
}

#[test]
fn an_id_comes_back_unchanged_in_value() {
    let mut session = negotiated(json!([]));
    for (given, echoed) in [("\"a\"", "\"a\""), ("[1, {}]", "[1, {}]"), ("1e3", "1000"), ("null", "null")] {
        session.feed(format!("{{\"id\": {given}, \"execute\": \"query-status\"}}").as_bytes());
        assert_eq!(session.next_output(), Some(Output::Request(Command::QueryStatus)));
        let reply = String::from_utf8(session.reply(Ok(json!({})))).expect("it is ASCII");
        assert_eq!(reply, format!("{{\"return\": {{}}, \"id\": {echoed}}}\r\n"));
    }
}

#[test]
fn the_deepest_id_is_echoed_and_dropped_without_harm() {
    let mut session = negotiated(json!([]));
    let deep = "[".repeat(1023) + &"]".repeat(1023);
    let replies = said(&mut session, format!("{{\"id\": {deep}}}{{\"id\": [{deep}]}}"));
    assert!(replies[0].get("id").is_some_and(Value::is_array));
    assert_eq!(replies[1], generic("JSON nesting depth limit exceeded"));
}

#[test]
fn an_error_about_an_object_carries_its_id_and_a_syntax_error_none() {
    let mut session = negotiated(json!([]));
    let replies = said(&mut session, r#"{"id": "err-2"}{"id": "err-3", "execute": 01}"#);
    let ids: Vec<_> = replies.iter().map(|reply| reply.get("id").cloned()).collect();
    assert_eq!(ids, [Some(json!("err-2")), None, None]);
    let replies = said(&mut session, r#"{"exec-oob": "quit", "id": 7}"#);
    assert_eq!(replies[0]["id"], json!(7));
}

#[test]
fn commands_wait_for_the_one_under_way() {
    let mut session = negotiated(json!([]));
    session.feed(b"{'execute': 'query-status', 'id': 1}{'execute': 'query-version', 'id': 2}{}");
    assert_eq!(session.next_output(), Some(Output::Request(Command::QueryStatus)));
    assert_eq!(session.next_output(), None);
    assert!(!session.wants_input());
    assert_eq!(parsed(&session.reply(Ok(json!({}))))["id"], json!(1));
    assert_eq!(session.next_output(), Some(Output::Request(Command::QueryVersion)));
    let failed = session.reply(Err(QapiError::device_not_found("x")));
    let expected = json!({"class": "DeviceNotFound", "desc": "Device 'x' not found"});
    assert_eq!(parsed(&failed)["error"], expected);
    assert!(matches!(session.next_output(), Some(Output::Reply(_))));
    assert!(session.wants_input());
}

#[test]
fn with_oob_errors_overtake_and_commands_queue() {
    let mut session = negotiated(json!(["oob"]));
    let status = |id: usize| json!({"execute": "query-status", "id": id}).to_string();
    session.feed(status(0).as_bytes());
    assert_eq!(session.next_output(), Some(Output::Request(Command::QueryStatus)));
    assert!(session.wants_input(), "an exec-oob may come");
    session.feed(format!("{}{{\"a\" 1}}", status(1)).as_bytes());
    let oob = |name: &str| said(&mut session, json!({"exec-oob": name, "id": name}).to_string());
    let [known, unknown] = ["query-version", "nope"].map(oob);
    let expected = generic("The command query-version does not support OOB")["error"].clone();
    assert_eq!(known, [json!({"error": expected, "id": "query-version"})]);
    assert_eq!(unknown[0]["id"], "nope", "nothing that was there before it is answered before");
    for id in 2..QUEUE_MAX {
        assert!(session.wants_input());
        session.feed(status(id).as_bytes());
        assert_eq!(session.next_output(), None);
    }
    assert!(!session.wants_input(), "eight wait, and that is all");
    session.feed(json!({"exec-oob": "nope"}).to_string().as_bytes());
    assert_eq!(session.next_output(), None);
    for id in 0..QUEUE_MAX {
        assert_eq!(parsed(&session.reply(Ok(json!({}))))["id"], json!(id));
        let mut next = session.next_output();
        while let Some(Output::Reply(_)) = next {
            next = session.next_output();
        }
        let more = (id + 1 < QUEUE_MAX).then_some(Output::Request(Command::QueryStatus));
        assert_eq!(next, more);
    }
    assert!(session.is_idle() && session.wants_input());
}

#[test]
fn a_reply_that_no_client_could_read_is_an_error() {
    let mut session = negotiated(json!([]));
    let mut replied = |request: Value, len: usize| {
        session.feed(request.to_string().as_bytes());
        assert!(matches!(session.next_output(), Some(Output::Request(_))));
        session.reply(Ok(json!("x".repeat(len))))
    };
    let around = "{\"return\": \"\"}\r\n".len();
    let longest = replied(json!({"execute": "query-status"}), REPLY_BYTES_MAX - around);
    assert_eq!(longest.len(), REPLY_BYTES_MAX);
    let desc = |line: Vec<u8>| parsed(&line)["error"]["desc"].as_str().expect("it is an error").to_owned();
    let error = desc(replied(json!({"execute": "query-status"}), REPLY_BYTES_MAX - around + 1));
    assert_eq!(error, "the reply has 262144 bytes, and 262143 are possible");
    for (name, advice) in [
        ("query-rx-filter", "possible: ask for one nic by 'name'"),
        ("x-query-stats", "possible: ask for one port by 'name', or for some by 'limit' and 'after'"),
        ("x-query-fdb", "possible: ask for fewer by 'limit'"),
    ] {
        let line = replied(json!({"execute": name, "id": 7}), REPLY_BYTES_MAX);
        assert_eq!(parsed(&line)["id"], 7);
        assert!(desc(line).ends_with(advice), "{name}");
    }
}

#[test]
fn an_event_has_a_timestamp_and_data_only_where_given() {
    let session = negotiated(json!([]));
    let event = |data| {
        let line = session.event("SHUTDOWN", data, Duration::new(7, 8_000));
        parsed(&line.expect("the negotiation is over"))
    };
    let timestamp = json!({"seconds": 7, "microseconds": 8});
    assert_eq!(event(None), json!({"timestamp": timestamp, "event": "SHUTDOWN"}));
    let with_data = json!({"timestamp": timestamp, "event": "SHUTDOWN", "data": {"guest": false}});
    assert_eq!(event(Some(json!({"guest": false}))), with_data);
}
