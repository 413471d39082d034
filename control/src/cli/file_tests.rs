//! Every way in which a configuration file can be wrong, and the place that is shown for it.

use std::ffi::OsString;

use super::tests::TemporaryFile;
use super::*;

/// What `ringyard run -c FILE OPTIONS` has to say of a file with this text; its path is left out.
fn refused(name: &str, text: &str, options: &[&str]) -> CliError {
    let file = TemporaryFile::new(name, text);
    let mut arguments: Vec<OsString> = ["ringyard", "run", "-c"].map(OsString::from).to_vec();
    arguments.push(file.0.clone().into());
    arguments.extend(options.iter().map(OsString::from));
    let without_path = |text: &str| text.replace(&format!("{}:", file.0.display()), "");
    match parse(arguments).expect_err(text) {
        CliError::File(mut findings) => {
            findings.iter_mut().for_each(|finding| finding.line = without_path(&finding.line));
            CliError::File(findings)
        }
        CliError::Usage(text) => CliError::Usage(without_path(&text)),
        other => other,
    }
}

/// The lines of what is found in a text.
fn lines(name: &str, text: &str) -> Vec<String> {
    match refused(name, text, &[]) {
        CliError::File(findings) => findings.into_iter().map(|finding| finding.line).collect(),
        other => panic!("{text}: {other}"),
    }
}

#[test]
fn every_fault_is_shown_where_it_is() {
    for (name, text, expected) in [
        ("syntax", "[switch\n", "1:8: unclosed table, expected `]`"),
        ("value", "a = \n", "1:5: string values must be quoted, expected literal string"),
        ("twice", "[log]\n[log]\n", "2:2: duplicate key"),
        ("key", "speed = 1", "1:1: Parameter 'speed' is unexpected"),
        ("nested", "[switch]\n  speed = 1", "2:3: Parameter 'switch.speed' is unexpected"),
        ("object", "[[netdev]]\ntype='tap'\nid='t'\nx=1", "4:1: Parameter 'x' is unexpected"),
        ("first", "[[netdev]]\nz=1\nx=1\ntype='tap'\nid='t'", "2:1: Parameter 'z' is unexpected"),
        ("hub", "[[hub]]\nid=0\nageing=5", "3:1: Parameter 'ageing' is unexpected"),
        ("missing", "\n[[netdev]]\ntype='tap'", "2:1: Parameter 'id' is missing"),
        ("mode", "[switch]\nmode='fast'", "2:6: Parameter 'mode' does not accept value 'fast'"),
        ("array", "[nic]\nid='n'", "1:1: Invalid parameter type for 'nic', expected: array"),
        ("table", "nic = [1]", "1:8: Invalid parameter type for 'nic[0]', expected: object"),
        ("date", "[log]\nlevel=2020-01-01", "2:7: Invalid parameter type for 'log.level', expected: string"),
        ("workers", "[switch]\nworkers = 65", "2:11: the number of workers must be in range [1, 64]"),
        ("bits", "[sockets]\nmode = '999'", "2:8: '999' are no permission bits in octal such as 0660"),
        (
            "monitor",
            "qmp = ['x']",
            "1:8: 'x' is no place for a monitor: write unix:PATH or tcp:HOST:PORT, with server=on,wait=off to listen there; \
             fd:NUMBER; or stdio",
        ),
        ("kind", "[[nic]]\ntype='tap'", "2:6: Parameter 'type' can only be 'nic' here"),
        ("mac", "[[nic]]\nmacaddr = '1:2'", "2:11: invalid syntax for ethernet address"),
        (
            "inner",
            "[[netdev]]\ntype='stream'\nid='s'\naddr = { type = 'inet', host = 'h', port = 1 }",
            "4:44: Invalid parameter type for 'addr.port', expected: string",
        ),
        (
            "dotted",
            "[[netdev]]\ntype='stream'\nid='s'\naddr.type='unix'\naddr.what=1",
            "4:1: Parameter 'addr.path' is missing",
        ),
        (
            "range",
            "[[netdev]]\ntype='hubport'\nid='h'\nhubid=99999999999999999999",
            "4:7: Invalid parameter type for 'hubid', expected: integer",
        ),
        (
            "resolved",
            "[[netdev]]\ntype='vhost-user'\nid='n'\nchardev='c'\nqueues=0",
            "5:8: vhost-user number of queues must be in range [1, 1024]",
        ),
        (
            "absent",
            "[[netdev]]\nid='n'\ntype='none'",
            "3:6: network backend 'none' is not compiled into this binary",
        ),
    ] {
        assert_eq!(lines(name, text), [expected], "{text}");
    }
}

#[test]
fn what_excludes_each_other_is_shown_at_both_places() {
    let tap = "[[netdev]]\ntype='tap'\nid='t'\n";
    let twice = lines("ids", &format!("{tap}{tap}"));
    assert_eq!(twice, ["6:4: Duplicate ID 't'", "3:4: note: it is first given here"]);
    let chardev = "[[chardev]]\ntype='socket'\nid='c'\npath='/c'\n";
    let twice = lines("chardevs", &format!("{chardev}{chardev}"));
    assert_eq!(twice, ["7:4: Chardev with id 'c' already exists", "3:4: note: it is first given here"]);
    let object = "[[object]]\nqom-type='filter-dump'\nid='f'\nnetdev='t'\nfile='x'\n";
    let taken = "attempt to add duplicate property 'f' to object (type 'container')";
    let twice = lines("objects", &format!("{tap}{object}{object}"));
    assert_eq!(twice, [format!("11:4: {taken}"), "6:4: note: it is first given here".into()]);
    assert_eq!(lines("lost", object), ["4:8: Parameter 'netdev' expects a network backend id"]);
    let both = lines("placement", "[switch]\nworkers = 1\ncores = '0'");
    assert_eq!(both, ["3:9: 'workers' and 'cores' exclude each other", "2:11: note: these are the workers"]);
    let monitor = "'unix:/q,server=on'";
    let monitors = lines("monitors", &format!("qmp = [{monitor},\n{monitor}]"));
    assert_eq!(monitors, ["2:1: there is a monitor already", "1:8: note: it is this one"]);
    let nic = "[[nic]]\nnetdev='t'\n";
    let nics = lines("nics", &format!("{tap}{nic}{nic}"));
    let expected = "7:8: netdev 't' is already connected to the nic 'nic0'";
    assert_eq!(nics, [expected, "5:8: note: 'nic0' has it already"]);
    let guest = |id| format!("[[netdev]]\ntype='vhost-user'\nid='{id}'\nchardev='c'\n");
    let guests = lines("guests", &format!("{chardev}{}{}", guest("a"), guest("b")));
    assert_eq!(guests, ["12:9: Device 'c' is in use", "8:9: note: 'a' has it already"]);
}

#[test]
fn references_are_followed_when_all_else_is_right() {
    let nic = "[[nic]]\nnetdev='n'\n";
    assert_eq!(lines("lost", nic), ["2:8: netdev 'n' not found"]);
    assert_eq!(
        lines("below", &format!("{nic}[[netdev]]\ntype='tap'\nid='n'\nx=1")),
        ["6:1: Parameter 'x' is unexpected"],
        "the object is there, only wrong"
    );
    let guest = "[[netdev]]\ntype='vhost-user'\nid='n'\nchardev='c9'";
    assert_eq!(lines("chardev", guest), ["4:9: chardev \"c9\" not found"]);
    let port = "[[netdev]]\ntype='hubport'\nid='n'\nhubid=0\n";
    let on_port = "netdev 'n' is a hub port: a nic stands on a netdev such as vhost-user or tap";
    assert_eq!(lines("port", &format!("{port}{nic}")), [format!("6:8: {on_port}")]);
}

#[test]
fn faults_are_reported_together_up_to_a_number() {
    let text = "speed = 1\n[switch]\nmode='fast'\nfull-receiver='wait'\n[[nic]]\nmacaddr='x'\n[[nic]]\ny=1";
    let expected = [
        "1:1: Parameter 'speed' is unexpected",
        "3:6: Parameter 'mode' does not accept value 'fast'",
        "4:15: Parameter 'full-receiver' does not accept value 'wait'",
        "6:9: invalid syntax for ethernet address",
        "8:1: Parameter 'y' is unexpected",
    ];
    assert_eq!(lines("many", text), expected);
    assert_eq!(lines("limit", &"[[nic]]\ny=1\n".repeat(fault::FAULTS_MAX + 5)).len(), fault::FAULTS_MAX);
    let syntax = lines("two", "[switch]\nname=yard\n[log]\nlevel=\n");
    assert_eq!(syntax.len(), 2, "{syntax:?}");
}

#[test]
fn an_option_and_the_file_are_told_apart() {
    let tap = "[[netdev]]\ntype='tap'\nid='t'";
    let error = refused("both", tap, &["-netdev", "tap,id=t,queues=2"]).to_string();
    let expected =
        "ringyard: -netdev tap,id=t,queues=2: Duplicate ID 't'\n3:4: note: it is first given here\n";
    assert!(error.starts_with(expected), "{error}");
    let error = refused("each", &format!("{tap}\nx=1"), &["-netdev", "tap"]).to_string();
    assert_eq!(
        error,
        "4:1: Parameter 'x' is unexpected\n  4 | x=1\n    | ^\n-netdev tap: Parameter 'id' is missing"
    );
}

#[test]
fn an_option_may_repeat_what_the_file_says() {
    let text = "qmp=['unix:/q,server']\n[[chardev]]\ntype='socket'\nid='c'\npath='/c'\nserver=true\n[[netdev]]\ntype='tap'\nid='t'";
    let file = TemporaryFile::new("repeated", text);
    let line = format!(
        "ringyard run -c {} -qmp unix:/q,server=on,wait=off -chardev socket,id=c,path=/c,server=on -netdev tap,id=t",
        file.0.display()
    );
    let Ok(Invocation::Run { config, .. }) = parse(line.split(' ').map(OsString::from)) else {
        panic!("nothing is wrong with it")
    };
    assert_eq!((config.monitors.len(), config.chardevs.len(), config.netdevs.len()), (1, 1, 1));
}
