//! Dumps as objects: added, shown, looked at, set and taken away.

use ringyard_tests::Result;
use serde_json::Value;

use crate::answer::View;
use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

/// One story over one pair: a command's name and its arguments, or what the human monitor is told. Files are each side's
/// own.
const STORY: &[&str] = &[
    r#"netdev_add {"type": "user", "id": "u1"}"#,
    r#"netdev_add {"type": "user", "id": "u2"}"#,
    r#"qom-list {}"#,
    r#"qom-list {"path": 1}"#,
    r#"qom-list {"path": ""}"#,
    r#"qom-list {"path": "/nope"}"#,
    r#"qom-list {"path": "nope"}"#,
    r#"object-add {}"#,
    r#"object-add {"qom-type": "filter-dump"}"#,
    r#"object-add {"id": "f0"}"#,
    r#"object-add {"qom-type": "nope", "id": "f0"}"#,
    r#"object-add {"qom-type": 1, "id": "f0"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": 1}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "", "file": "x"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "nope", "file": "x", "position": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "nope", "file": "x", "maxlen": 0, "status": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "/no/such/x"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "/no/such/x", "position": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "/dev/fdset/9"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "/tmp"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": ""}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "maxlen": 0}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "maxlen": -1}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "maxlen": "1"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "maxlen": 4294967296}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "queue": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "status": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "status": true}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "position": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "position": ""}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "position": "id=zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "position": "id="}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "insert": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "x", "foo": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "1f", "netdev": "u1", "status": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "1f", "netdev": "u1", "file": "x", "status": "zz"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f 0", "netdev": "u1", "file": "x"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u1", "file": "0"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u2", "file": "1"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f0", "netdev": "u2", "file": "/no/such/1"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f1", "netdev": "u1", "file": "1", "position": "head"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f2", "netdev": "u1", "file": "2", "position": "id=f0"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f3", "netdev": "u1", "file": "3", "position": "id=f0", "insert": "before", "maxlen": 100, "queue": "tx", "status": "off"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f4", "netdev": "u2", "file": "4", "position": "id=f1"}"#,
    r#"object-add {"qom-type": "filter-dump", "id": "f4", "netdev": "u2", "file": "4", "position": "head", "insert": "before"}"#,
    "info network",
    r#"qom-list {"path": "/objects"}"#,
    r#"qom-list {"path": "objects"}"#,
    r#"qom-list {"path": "/objects/f0"}"#,
    r#"qom-list {"path": "f0"}"#,
    r#"qom-list {"path": "/objects/f0/"}"#,
    r#"qom-list {"path": "//objects//f0"}"#,
    r#"qom-list {"path": "/objects/f0/type"}"#,
    r#"qom-list {"path": "/f0"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "type"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "netdev"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "queue"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "status"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "position"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "insert"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "file"}"#,
    r#"qom-get {"path": "/objects/f3", "property": "maxlen"}"#,
    r#"qom-get {"path": "objects/f0", "property": "maxlen"}"#,
    r#"qom-get {"path": "f0/", "property": "position"}"#,
    r#"qom-get {"path": "/objects/f0", "property": "nope"}"#,
    r#"qom-get {"path": "/objects", "property": "f0"}"#,
    r#"qom-get {"path": "/objects", "property": "type"}"#,
    r#"qom-get {"path": "/", "property": "type"}"#,
    r#"qom-get {"path": "/", "property": "objects"}"#,
    r#"qom-get {"path": "nope", "property": "objects"}"#,
    r#"qom-get {"path": "", "property": "type"}"#,
    r#"qom-get {"path": "/objects/f0"}"#,
    r#"qom-set {"path": "/objects/f0", "property": "status", "value": "off"}"#,
    r#"qom-get {"path": "f0", "property": "status"}"#,
    r#"qom-set {"path": "f0", "property": "status", "value": "zz"}"#,
    r#"qom-set {"path": "f0", "property": "status", "value": true}"#,
    r#"qom-set {"path": "f0", "property": "status"}"#,
    r#"qom-set {"path": "f0", "property": "nope", "value": 1}"#,
    r#"qom-set {"path": "f0", "property": "type", "value": "x"}"#,
    r#"qom-set {"path": "f0", "property": "queue", "value": "rx"}"#,
    r#"qom-set {"path": "f0", "property": "queue", "value": "zz"}"#,
    r#"qom-set {"path": "f0", "property": "queue", "value": 7}"#,
    r#"qom-get {"path": "f0", "property": "queue"}"#,
    r#"qom-set {"path": "f0", "property": "file", "value": "y"}"#,
    r#"qom-set {"path": "/objects", "property": "f0", "value": "zz"}"#,
    r#"qom-set {"path": "/objects", "property": "type", "value": "zz"}"#,
    r#"qom-set {"path": "nope", "property": "type", "value": "zz"}"#,
    r#"chardev-add {"id": "f0", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c"}}, "server": true, "wait": false}}}"#,
    r#"qom-list {"path": "f0"}"#,
    r#"qom-get {"path": "f0", "property": "type"}"#,
    r#"qom-set {"path": "f0", "property": "type", "value": 1}"#,
    r#"qom-list {"path": "chardevs/f0"}"#,
    r#"qom-get {"path": "chardevs/f0", "property": "type"}"#,
    r#"qom-get {"path": "chardevs/f0", "property": "connected"}"#,
    r#"qom-get {"path": "chardevs/f0", "property": "addr"}"#,
    r#"qom-set {"path": "chardevs/f0", "property": "connected", "value": true}"#,
    r#"chardev-remove {"id": "f0"}"#,
    r#"object-del {}"#,
    r#"object-del {"id": ""}"#,
    r#"object-del {"id": "nope"}"#,
    r#"object-del {"id": "f0"}"#,
    r#"object-del {"id": "f0"}"#,
    "object_add",
    "object_add filter-dump",
    "object_add filter-dump,id=f5",
    "object_add filter-dump,id=f5 x",
    "object_add filter-dump,foo",
    "object_add bogus=1",
    "object_add nope,id=f5",
    "object_add {",
    "object_add filter-dump,id=f5,netdev=u2",
    "object_add filter-dump,id=f5,netdev=u2,file=5,maxlen=2k",
    "object_add filter-dump,id=f5,netdev=u2,file=5,status=zz",
    "object_add filter-dump,id=f5,netdev=u2,file=5,,x,maxlen=0x10",
    "object_add qom-type=filter-dump,id=f6,netdev=u2,file=6",
    r#"object_add {"qom-type": "filter-dump", "id": "f7", "netdev": "u2", "file": "7"}"#,
    "info network",
    "object_del",
    "object_del nope",
    "object_del f6 x",
    "object_del f6",
    "info network",
    r#"netdev_del {"id": "u2"}"#,
    r#"qom-list {"path": "/objects"}"#,
    "info network",
];

#[test]
fn dumps_are_made_shown_and_changed_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::OBJECTS);
    for (number, row) in STORY.iter().enumerate() {
        let name = format!("{number}: {row}");
        match row.split_once(" {") {
            Some((command, arguments)) if command != "object_add" => {
                let input = format!("{{\"execute\": \"{command}\", \"arguments\": {{{arguments}}}");
                comparison.ask(&mut pair, &name, |side| {
                    let answers = side.ask(input.as_bytes(), &[])?;
                    let texts = answers.iter().map(|answer| match answer.returned() {
                        Value::Array(properties) => properties_of(properties),
                        _ => answer.text(View::Values),
                    });
                    Ok(texts.collect())
                })?;
            }
            _ => comparison.type_line(&mut pair, &name, row)?,
        }
    }
    comparison.finish()
}

/// What `qom-list` returned, in alphabetical order and without what is our own.
fn properties_of(properties: &[Value]) -> String {
    let mut texts: Vec<String> = properties.iter().map(Value::to_string).collect();
    texts.retain(|text| !text.contains("\"x-"));
    texts.sort();
    format!("return {}", texts.join(" "))
}
