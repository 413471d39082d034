//! Every text of a failed visit, in both forms.

use serde_json::json;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Colour {
    Red,
}

impl QapiEnum for Colour {
    const TYPE: &'static str = "Colour";
    const NAMES: &'static [(&'static str, Self)] = &[("red", Colour::Red)];
}

fn visitor(value: Value, form: Form) -> Visitor {
    match value {
        Value::Object(members) => Visitor::new(members, form),
        _ => panic!("the test needs an object"),
    }
}

fn taken<T: FromQapi>(value: Value, form: Form) -> Result<T, String> {
    visitor(json!({"x": value}), form).required("x").map_err(|error| error.desc)
}

fn json<T: FromQapi>(value: Value) -> Result<T, String> {
    taken(value, Form::Json)
}

fn keyval<T: FromQapi>(text: &str) -> Result<T, String> {
    taken(text.into(), Form::Keyval)
}

fn invalid<T>(expected: &str) -> Result<T, String> {
    Err(format!("Invalid parameter type for 'x', expected: {expected}"))
}

fn expects<T>(what: &str) -> Result<T, String> {
    Err(format!("Parameter 'x' expects {what}"))
}

#[test]
fn a_missing_member_is_named() {
    let mut visitor = visitor(json!({}), Form::Json);
    assert_eq!(visitor.optional::<bool>("x"), Ok(None));
    let error = visitor.required::<bool>("x").expect_err("it is missing");
    assert_eq!(error, QapiError::generic("Parameter 'x' is missing"));
}

#[test]
fn the_first_member_that_nobody_took_is_unexpected() {
    let mut visitor = visitor(json!({"a": 1, "foo": 2, "bar": 3}), Form::Json);
    assert_eq!(visitor.required::<i64>("a"), Ok(1));
    assert_eq!(visitor.finish(), Err(QapiError::generic("Parameter 'foo' is unexpected")));
}

#[test]
fn json_types_are_strict() {
    assert_eq!(json::<String>(json!(1234)), invalid("string"));
    assert_eq!(json::<bool>(json!(1)), invalid("boolean"));
    assert_eq!(json::<bool>(json!("on")), invalid("boolean"));
    assert_eq!(json::<i64>(json!("1")), invalid("integer"));
    assert_eq!(json::<i64>(json!(1e3)), invalid("integer"));
    assert_eq!(json::<i32>(json!(null)), invalid("integer"));
    assert_eq!(json::<Vec<bool>>(json!({})), invalid("array"));
    assert_eq!(json::<Visitor>(json!([])).map(drop), invalid("object"));
}

#[test]
fn integers_keep_to_their_range() {
    assert_eq!(json::<i32>(json!(-2147483648)), Ok(i32::MIN));
    assert_eq!(json::<i32>(json!(2147483648u32)), expects("int32_t"));
    assert_eq!(json::<u32>(json!(4294967296u64)), expects("uint32_t"));
    assert_eq!(json::<u32>(json!(-1)), expects("uint32_t"));
    assert_eq!(json::<u32>(json!(u64::MAX)), expects("uint32_t"));
    assert_eq!(json::<u16>(json!(65536)), expects("uint16_t"));
    assert_eq!(json::<u64>(json!(u64::MAX)), Ok(u64::MAX));
    assert_eq!(json::<u64>(json!(-1)), Ok(u64::MAX));
    assert_eq!(json::<u64>(json!(1.5)), expects("uint64"));
    assert_eq!(json::<Size>(json!("1M")), expects("uint64"));
}

#[test]
fn an_enum_is_reported_without_its_path() {
    assert_eq!(json(json!("red")), Ok(Colour::Red));
    fn refused<T>(name: &str) -> Result<T, String> {
        Err(format!("Parameter '{name}' does not accept value 'foo'"))
    }
    assert_eq!(json::<Colour>(json!("foo")), refused("x"));
    assert_eq!(json::<Vec<Colour>>(json!(["red", "foo"])), refused("null"));
    let mut nested: Visitor = json(json!({"colour": "foo"})).expect("it is an object");
    assert_eq!(nested.required::<Colour>("colour").map_err(|error| error.desc), refused("colour"));
}

#[test]
fn nested_names_are_dotted_and_lists_indexed() {
    let nested = || json::<Visitor>(json!({"port": 1})).expect("it is an object");
    let desc = |error: QapiError| error.desc;
    let error = nested().required::<String>("port").map_err(desc);
    assert_eq!(error, Err("Invalid parameter type for 'x.port', expected: string".into()));
    let error = nested().required::<String>("host").map_err(desc);
    assert_eq!(error, Err("Parameter 'x.host' is missing".into()));
    assert_eq!(nested().finish().map_err(desc), Err("Parameter 'x.port' is unexpected".into()));
    let error = json::<Vec<String>>(json!(["a", 1]));
    assert_eq!(error, Err("Invalid parameter type for 'x[1]', expected: string".into()));
}

#[test]
fn keyval_booleans_have_four_names_each() {
    for (names, value) in [(["on", "yes", "true", "y"], true), (["off", "no", "false", "n"], false)] {
        assert!(names.iter().all(|name| keyval(name) == Ok(value)));
    }
    assert_eq!(keyval::<bool>("maybe"), expects("'on' or 'off'"));
    assert_eq!(keyval::<bool>("1"), expects("'on' or 'off'"));
}

#[test]
fn keyval_integers_have_the_prefixes_of_c() {
    assert_eq!(keyval("0x10"), Ok(16u32));
    assert_eq!(keyval("010"), Ok(8u32));
    assert_eq!(keyval("-0x80000000"), Ok(i32::MIN));
    assert_eq!(keyval("18446744073709551615"), Ok(u64::MAX));
    for bad in ["", "x", "1k", "0x", "--1", "1.5", "18446744073709551616", "+-1"] {
        assert_eq!(keyval::<i64>(bad), expects("integer"), "{bad}");
    }
    assert_eq!(keyval::<i32>("2147483648"), expects("int32_t"));
    assert_eq!(keyval::<u32>("-1"), expects("uint32_t"));
}

#[test]
fn keyval_sizes_take_suffixes() {
    assert_eq!(keyval("512"), Ok(Size(512)));
    assert_eq!(keyval("1k"), Ok(Size(1024)));
    assert_eq!(keyval("2M"), Ok(Size(2 << 20)));
    for bad in ["", "M", "1kk", "1x", "-1", "16E"] {
        assert_eq!(keyval::<Size>(bad), expects("size"), "{bad}");
    }
}

#[test]
fn keyval_lists_are_numbered_members() {
    let list = json!({"1": "b", "0": "a"});
    assert_eq!(taken::<Vec<String>>(list, Form::Keyval), Ok(vec!["a".into(), "b".into()]));
    assert_eq!(taken::<Vec<String>>(json!({"1": "b"}), Form::Keyval), invalid("array"));
}
