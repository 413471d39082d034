//! Programs that are started for a switch which is confined: those that its start has named, and no others. Whoever takes
//! the switch over may have them run once more, as a monitor's client may, but not a program of its own choice.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::user::{Device, GuestTarget, UserOptions};

use super::opener::is_door;

/// What may be started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// Commands as they were named, word by word: a script, a bridge helper, what answers a guest.
    pub commands: Vec<Vec<String>>,
    /// Programs that may be started with whatever arguments.
    pub programs: Vec<PathBuf>,
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Errand {
    /// A script around an interface's life.
    Script { path: PathBuf, ifname: String },
    /// What makes a tap on a bridge: the path of a program, or a shell command.
    BridgeHelper { helper: String, bridge: String },
    /// The process behind a `user` port; `program` in place of this one where nothing is confined.
    UserHelper { program: PathBuf },
}

impl Errand {
    /// The program and its arguments. `passed` is the number that the descriptor has there which is passed on.
    pub(crate) fn words(&self, passed: i32) -> (PathBuf, Vec<String>) {
        match self {
            Errand::Script { path, ifname } => (path.clone(), vec![ifname.clone()]),
            Errand::BridgeHelper { helper, bridge } if is_shells(helper) => {
                let mut line = format!("{helper} --use-vnet --fd={passed}");
                if !helper.contains("--br=") {
                    line += &format!(" --br={bridge}");
                }
                ("sh".into(), vec!["-c".into(), line])
            }
            Errand::BridgeHelper { helper, bridge } => {
                let arguments = ["--use-vnet".into(), format!("--fd={passed}"), format!("--br={bridge}")];
                (helper.into(), arguments.into())
            }
            Errand::UserHelper { program } => (program.clone(), vec![crate::user::helper::SUBCOMMAND.into()]),
        }
    }
}

/// Whether a helper is a command for the shell, as QEMU sees it.
fn is_shells(helper: &str) -> bool {
    helper.contains([' ', '\t'])
}

impl Allowed {
    /// Whether this may be done; the error is a sentence that says of what not, and what to do.
    pub(super) fn judge(&self, errand: &Errand) -> Result<(), String> {
        match errand {
            Errand::Script { path, ifname } => {
                if !is_interface_name(ifname) {
                    return Err(format!("the sandbox does not take '{ifname}' for an interface's name"));
                }
                self.permit(&[path.to_string_lossy().into_owned()])
            }
            Errand::BridgeHelper { helper, bridge } => {
                // The shell reads more into a name than the helper.
                let safe = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
                if is_shells(helper) && !bridge.chars().all(safe) {
                    return Err(format!("the sandbox does not take '{bridge}' for a bridge's name"));
                }
                // That there is no such program, the kernel says.
                if helper.is_empty() { Ok(()) } else { self.permit(std::slice::from_ref(helper)) }
            }
            // It is told by the switch what to be, and judges that itself: `judge_user`.
            Errand::UserHelper { .. } => Ok(()),
        }
    }

    /// Whether a `user` port may be this; the error is such a sentence.
    pub(crate) fn judge_user(&self, options: &UserOptions) -> Result<(), String> {
        for forward in &options.guest_forwards {
            match &forward.target {
                GuestTarget::Command(words) => self.permit(words)?,
                GuestTarget::Device(Device::Unix(path)) => {
                    // One that leads nowhere is the kernel's to refuse.
                    if std::fs::canonicalize(path).is_ok_and(|path| is_door(&path)) {
                        return Err(format!("the sandbox does not permit a connection to {path}"));
                    }
                }
                GuestTarget::Device(_) => {}
            }
        }
        match &options.smb {
            None => Ok(()),
            Some(share) => self.permit(&share_words(&share.directory)),
        }
    }

    fn permit(&self, words: &[String]) -> Result<(), String> {
        let program = words.first().map_or(Path::new(""), Path::new);
        if self.commands.iter().any(|command| command == words)
            || self.programs.iter().any(|known| known == program)
        {
            return Ok(());
        }
        Err(format!(
            "the sandbox starts no program that the switch's start has not named: start it with --may-run {}, or \
             with --no-sandbox",
            program.display()
        ))
    }
}

/// How it is named that Samba shares a directory: Samba's server does with it what whoever runs the switch may.
pub fn share_words(directory: &str) -> Vec<String> {
    vec![crate::user::helper::SMBD.into(), directory.into()]
}

/// What the kernel accepts as the name of an interface; and no option.
fn is_interface_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    (1..=15).contains(&name.len()) && !name.starts_with(['.', '-']) && name.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        let commands = [vec!["/etc/up"], vec!["/opt/helper --quiet"], vec!["/bin/tr", "a", "b"]];
        Allowed {
            commands: commands.map(|words| words.into_iter().map(String::from).collect()).into(),
            programs: vec!["/bin/cat".into()],
        }
    }

    #[test]
    fn what_was_named_is_started_and_nothing_else() {
        let script = |path: &str, name: &str| Errand::Script { path: path.into(), ifname: name.into() };
        let helper =
            |helper: &str, name: &str| Errand::BridgeHelper { helper: helper.into(), bridge: name.into() };
        for (errand, may) in [
            (script("/etc/up", "tap0"), true),
            (script("/bin/cat", "tap0"), true),
            (script("/etc/up", "-c"), false),
            (script("/etc/up", "../x"), false),
            (script("/etc/up", ""), false),
            (script("/bin/sh", "tap0"), false),
            (script("/etc/../etc/up", "tap0"), false),
            (helper("/opt/helper --quiet", "br0"), true),
            (helper("/opt/helper --quiet", "br0;reboot"), false),
            (helper("/opt/helper", "br0"), false),
            (helper("reboot ; /opt/helper --quiet", "br0"), false),
        ] {
            assert_eq!(allowed().judge(&errand).is_ok(), may, "{errand:?}");
        }
        let why = allowed().judge(&script("/bin/sh", "tap0")).expect_err("a shell");
        assert!(why.contains("--may-run /bin/sh"), "{why}");
    }

    #[test]
    fn what_answers_a_guest_is_named_with_its_arguments() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        for (text, may) in
            [("/bin/tr a b", true), ("/bin/tr a b c", false), ("/bin/tr", false), ("/bin/cat any", true)]
        {
            assert_eq!(allowed().permit(&words(text)).is_ok(), may, "{text}");
        }
        assert!(allowed().permit(&[]).is_err());
        assert!(allowed().permit(&share_words("/etc")).is_err());
    }

    #[test]
    fn a_helper_is_called_as_qemu_calls_it() {
        let helper = |helper: &str| Errand::BridgeHelper { helper: helper.into(), bridge: "br0".into() };
        let words = |text: &str| {
            let (program, arguments) = helper(text).words(100);
            (program.display().to_string(), arguments.join(" "))
        };
        let plain = ("/h".to_owned(), "--use-vnet --fd=100 --br=br0".to_owned());
        assert_eq!(words("/h"), plain);
        assert_eq!(words("/h -q"), ("sh".into(), "-c /h -q --use-vnet --fd=100 --br=br0".into()));
        assert_eq!(words("/h --br=b"), ("sh".into(), "-c /h --br=b --use-vnet --fd=100".into()));
    }
}
