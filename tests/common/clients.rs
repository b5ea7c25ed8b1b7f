//! Installs the foreign clients: a Python environment and a Node folder under `target/clients`, made once a machine and
//! again only when the pinned requirements change, and the system's own tools (Chromium, mosquitto's clients, curl).
//! What is missing and cannot be installed is a panic that names the command to run, never a skipped test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the installed clients are.
#[derive(Debug)]
pub struct Clients {
    /// The interpreter of the environment that has the Python libraries.
    pub python: PathBuf,
    /// The folder of the Python programs.
    pub python_programs: PathBuf,
    /// The folder that has `node_modules` and copies of the Node programs.
    pub node: PathBuf,
}

/// Executable, and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("chromium", "chromium"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("curl", "curl"),
    ("python3", "python3-venv"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// Installs everything that is missing; with nothing missing it only looks at files. Safe to call from many threads and
/// from many test processes at once.
pub fn setup() -> &'static Clients {
    static CLIENTS: OnceLock<Clients> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        let root = target().join("clients");
        fs::create_dir_all(&root).expect("make target/clients");
        let lock = File::create(root.join(".lock")).expect("make target/clients/.lock");
        lock.lock().expect("lock target/clients/.lock");
        tools();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let clients = Clients {
            python: python(&sources.join("python"), &root.join("python")),
            python_programs: sources.join("python"),
            node: node(&sources.join("node"), &root.join("node")),
        };
        drop(lock);
        clients
    })
}

/// Cargo's target folder: the parent of the one it gives to integration tests.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent").to_owned()
}

/// Whether PATH (or the place Debian puts Chromium) has an executable.
fn has(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]).any(|dir| dir.join(tool).is_file())
}

fn tools() {
    let missing = || {
        let mut packages: Vec<_> = TOOLS.iter().filter(|(tool, _)| !has(tool)).map(|(_, package)| *package).collect();
        packages.dedup();
        packages
    };
    let packages = missing();
    if packages.is_empty() {
        return;
    }
    let by_hand = format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "));
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    assert!(root && has("apt-get"), "the end-to-end tests need programs that are not here; as root: {by_hand}");
    run(Command::new("sh").args(["-c", &by_hand]).env("DEBIAN_FRONTEND", "noninteractive"), &by_hand);
    let still = missing();
    assert!(still.is_empty(), "still missing after `{by_hand}`: {still:?}");
}

fn python(sources: &Path, into: &Path) -> PathBuf {
    let python = into.join("bin/python");
    let requirements = sources.join("requirements.txt");
    let key = hash(&[&requirements]);
    if !done(into, &key) {
        let _ = fs::remove_dir_all(into);
        let hint = format!("python3 -m venv {0} && {0}/bin/pip install -r {1}", into.display(), requirements.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(into), &hint);
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
        run(&mut pip, &hint);
        mark(into, &key);
    }
    python
}

fn node(sources: &Path, into: &Path) -> PathBuf {
    let files = [sources.join("package.json"), sources.join("package-lock.json")];
    let key = hash(&[&files[0], &files[1]]);
    if !done(into, &key) {
        let _ = fs::remove_dir_all(into);
        fs::create_dir_all(into).expect("make the Node folder");
        for file in &files {
            fs::copy(file, into.join(file.file_name().expect("a file"))).expect("copy the Node requirements");
        }
        let arguments = ["ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"];
        let hint = format!("cd {} && npm {}", into.display(), arguments.join(" "));
        run(Command::new("npm").args(arguments).current_dir(into), &hint);
        mark(into, &key);
    }
    // A module finds its packages from where it lies, so the programs lie beside them; always the newest.
    for entry in fs::read_dir(sources).expect("list the Node programs") {
        let path = entry.expect("list the Node programs").path();
        if path.extension().is_some_and(|e| e == "mjs") {
            let copy = into.join(path.file_name().expect("a file"));
            let wanted = fs::read(&path).expect("read a Node program");
            if fs::read(&copy).ok().as_ref() != Some(&wanted) {
                // Renamed into place: another process may be starting the old one right now.
                let new = copy.with_extension("new");
                fs::write(&new, wanted).expect("write a Node program");
                fs::rename(&new, &copy).expect("put a Node program in place");
            }
        }
    }
    fs::create_dir_all(into.join("tmp")).expect("make the Node programs' temporary folder");
    into.to_owned()
}

/// FNV-1a over the files.
fn hash(files: &[&Path]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let bytes = fs::read(file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
        for byte in bytes.iter().chain(b"\0") {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

fn done(into: &Path, key: &str) -> bool {
    fs::read_to_string(into.join(".installed")).is_ok_and(|installed| installed == key)
}

fn mark(into: &Path, key: &str) {
    fs::write(into.join(".installed"), key).expect("note what is installed");
}

fn run(command: &mut Command, by_hand: &str) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; by hand: {by_hand}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}); by hand: {by_hand}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
