//! What a guest boots from, with programs of the host in it: the kernel unpacks one archive behind the other, so those
//! that change with each build come in a second one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};
use crate::process::command;

/// The archive `base`, or a longer one in `directory` that has `programs` in its `/bin` and their libraries where the
/// host has them.
pub(crate) fn with_programs(base: &Path, programs: &[PathBuf], directory: &Path) -> Result<PathBuf> {
    if programs.is_empty() {
        return Ok(base.to_owned());
    }
    let root = directory.join("root");
    for program in programs {
        let name =
            program.file_name().ok_or_else(|| Error::new(format!("{} has no name", program.display())))?;
        copy(program, &root.join("bin").join(name))?;
        for library in libraries(program)? {
            let place = library.strip_prefix("/").unwrap_or(&library);
            copy(&library, &root.join(place))?;
        }
    }
    let whole = directory.join("initramfs");
    let mut shell = command("sh")?;
    shell.args([
        "-c",
        r#"cat "$1" >"$2" && cd "$3" && busybox find . | busybox cpio -o -H newc >>"$2""#,
        "sh",
    ]);
    shell.arg(base).arg(&whole).arg(&root);
    let output = shell.output().doing("packing a guest's programs")?;
    fs::remove_dir_all(&root).doing("removing what was packed")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("packing a guest's programs: {errors}")));
    }
    Ok(whole)
}

/// What `ldd` names.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = command("ldd")?.arg(program).output().doing(format!("running ldd {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("copying {} to {}", from.display(), to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).doing(doing())?;
    }
    fs::copy(from, to).doing(doing()).map(drop)
}
