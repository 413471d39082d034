//! System call filters (seccomp(2)): rules as values, made into a program of classic BPF.
//!
//! The kernel runs it for every call, but remembers which calls a filter lets through whatever their arguments are (Linux
//! 5.11), and those cost nothing. So the program is a plain row of comparisons.

use std::ffi::c_long;
use std::mem::offset_of;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::sys::seccomp;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is made.
    Allow,
    /// The process that listens makes it, or answers in its place.
    Ask,
    /// It fails with this error.
    Fail(i32),
    /// It ends the process: nobody who makes it is one of us.
    Kill,
}

/// A condition of one argument: that it has `value` in the bits of `mask`. The upper half is not looked at: those that are
/// tested are of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Which argument, from 0.
    pub argument: usize,
    pub mask: u32,
    pub value: u32,
}

impl Check {
    /// It is this.
    pub(crate) fn is(argument: usize, value: u32) -> Check {
        Check { argument, mask: u32::MAX, value }
    }

    /// It has none of these bits.
    pub(crate) fn lacks(argument: usize, bits: u32) -> Check {
        Check { argument, mask: bits, value: 0 }
    }

    /// It has all of these bits.
    pub(crate) fn has(argument: usize, bits: u32) -> Check {
        Check { argument, mask: bits, value: bits }
    }
}

/// What becomes of one call: that of the first case whose checks all hold, or else the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub call: c_long,
    pub cases: Vec<(Vec<Check>, Verdict)>,
    pub otherwise: Verdict,
}

impl Rule {
    /// The same whatever the arguments.
    pub(crate) fn always(call: c_long, verdict: Verdict) -> Rule {
        Rule { call, cases: Vec::new(), otherwise: verdict }
    }
}

/// A filter, ready to be installed.
pub(crate) struct Program(Vec<libc::sock_filter>);

impl Program {
    /// Of rules for distinct calls; `otherwise` is for all others.
    pub(crate) fn new(rules: &[Rule], otherwise: Verdict) -> Program {
        let mut program = vec![
            load(offset_of!(libc::seccomp_data, arch)),
            compare(libc::BPF_JEQ, ARCH, 1, 0),
            verdict(Verdict::Kill),
            load(offset_of!(libc::seccomp_data, nr)),
        ];
        if cfg!(target_arch = "x86_64") {
            // The x32 calls, which have numbers of their own.
            program.extend([compare(libc::BPF_JGE, X32, 0, 1), verdict(Verdict::Kill)]);
        }
        for rule in rules {
            let body = body(rule);
            program.extend([compare(libc::BPF_JEQ, rule.call as u32, 1, 0), skip(body.len())]);
            program.extend(body);
        }
        program.push(verdict(otherwise));
        Program(program)
    }

    /// Puts this thread, and those that it starts, under the filter for good. The thread must have no_new_privs.
    pub(crate) fn install(&self) -> Result<(), Errno> {
        seccomp::install(&self.0)
    }

    /// The same; where calls are [asked](Verdict::Ask) after.
    pub(super) fn install_listening(&self) -> Result<OwnedFd, Errno> {
        seccomp::install_listening(&self.0)
    }
}

fn body(rule: &Rule) -> Vec<libc::sock_filter> {
    let mut body = Vec::new();
    for (checks, result) in &rule.cases {
        let mut case = Vec::new();
        for check in checks.iter().rev() {
            // What is behind a check that does not hold is skipped: the rest of the case, and its verdict.
            let rest = (case.len() + 1) as u8;
            case.splice(0..0, of_check(*check, rest));
        }
        case.push(verdict(*result));
        body.extend(case);
    }
    body.push(verdict(rule.otherwise));
    body
}

/// Goes on if it holds, and else skips `rest` instructions.
fn of_check(Check { argument, mask, value }: Check, rest: u8) -> Vec<libc::sock_filter> {
    let upper_first = if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut code = vec![load(offset_of!(libc::seccomp_data, args) + 8 * argument + upper_first)];
    if mask != u32::MAX {
        code.push(instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask));
    }
    code.push(compare(libc::BPF_JEQ, value, 0, rest));
    code
}

fn load(offset: usize) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32)
}

fn compare(how: u32, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { jt, jf, ..instruction(libc::BPF_JMP | how | libc::BPF_K, value) }
}

fn skip(count: usize) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, count as u32)
}

fn verdict(verdict: Verdict) -> libc::sock_filter {
    let action = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Ask => libc::SECCOMP_RET_USER_NOTIF,
        Verdict::Fail(error) => libc::SECCOMP_RET_ERRNO | error as u32,
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    instruction(libc::BPF_RET | libc::BPF_K, action)
}

fn instruction(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// AUDIT_ARCH_… of `linux/audit.h`: the ELF machine, 64 bits, little endian.
const ARCH: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };
/// The bit in the numbers of x32's calls.
const X32: u32 = 0x4000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says, as the kernel would run it.
    fn run(program: &Program, call: c_long, args: [u64; 6], arch: u32) -> u32 {
        let mut data = Vec::new();
        data.extend((call as u32).to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        args.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program.0[at];
            at += 1;
            let jump = |holds| usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                0x20 => accumulator = u32::from_ne_bytes(data[k as usize..][..4].try_into().unwrap()),
                0x54 => accumulator &= k,
                0x15 => at += jump(accumulator == k),
                0x35 => at += jump(accumulator >= k),
                0x05 => at += k as usize,
                0x06 => return k,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_first_case_that_holds_decides() {
        let case = |checks: &[Check], verdict| (checks.to_vec(), verdict);
        let rules = [
            Rule::always(1, Verdict::Allow),
            Rule {
                call: 2,
                cases: vec![
                    case(&[Check::is(0, 7), Check::lacks(1, 6)], Verdict::Allow),
                    case(&[Check::has(5, 3)], Verdict::Ask),
                ],
                otherwise: Verdict::Fail(13),
            },
        ];
        let program = Program::new(&rules, Verdict::Fail(1));
        let of = |call, args| run(&program, call, args, ARCH);
        let high = 5 << 32;
        for (call, args, expected) in [
            (1, [9; 6], libc::SECCOMP_RET_ALLOW),
            (2, [7, 9, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW),
            (2, [7 | high, 9 | high, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW),
            (2, [7, 2, 0, 0, 0, 3], libc::SECCOMP_RET_USER_NOTIF),
            (2, [8, 9, 0, 0, 0, 7], libc::SECCOMP_RET_USER_NOTIF),
            (2, [8, 9, 0, 0, 0, 1], libc::SECCOMP_RET_ERRNO | 13),
            (3, [0; 6], libc::SECCOMP_RET_ERRNO | 1),
        ] {
            assert_eq!(of(call, args), expected, "{call} {args:?}");
        }
        assert_eq!(
            run(&program, 1, [0; 6], ARCH ^ 1),
            libc::SECCOMP_RET_KILL_PROCESS,
            "another machine's call"
        );
        if cfg!(target_arch = "x86_64") {
            assert_eq!(of(1 | 0x4000_0000, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS, "x32");
        }
    }
}
