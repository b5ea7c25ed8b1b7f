//! The command line: argv → verb → exit code. Called by `main`; reads app and settings, then hands over to
//! `server::run`.

use crate::app::App;
use crate::diagnostic::Diagnostic;
use crate::server;
use crate::settings::{Address, ClientAuth, Layers, LogFormat, LogSettings, Mode, SETTINGS, Settings};
use crate::tls::Tls;
use crate::tools::transfer::{self, Form};
use crate::tools::{ToolError, backup, inspect, repair, verify};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};
use shards::schema::{Attribute, Kind, Role, TableDef};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Wrong usage, settings or app.
const EXIT_USAGE: u8 = 2;

const AFTER_HELP: &str = "\
Settings are read from (each replaces what comes before it): defaults, the settings file, environment variables
such as TABLECAST_HTTP__ADDRESS (with _FILE appended, the value is read from that file), flags.

Exit codes:
  0   fine
  1   failed while running
  2   wrong usage, settings or app
  65  what is stored is damaged
  74  the disk failed";

/// A real-time table server: REST, MQTT, WebSocket and SSE over one set of tables.
///
/// Without a command: `dev` with the built-in demo app.
#[derive(Parser)]
#[command(name = "tablecast", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,

    /// Settings file, in YAML [default: tablecast.yaml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve an app for development: pages of every origin may read it
    Dev {
        /// Folder with config.yaml and schema.graphql [default: the built-in demo]
        app: Option<PathBuf>,
    },
    /// Serve an app
    Run {
        /// Folder with config.yaml and schema.graphql [default: the built-in demo]
        app: Option<PathBuf>,
    },
    /// Read all data and say what of it is damaged; also while a server runs
    Verify {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make damaged data usable again without what is lost; says what that is
    Repair {
        /// Do it; without this flag nothing is changed
        #[arg(long)]
        accept_loss: bool,
    },
    /// Show what the data directory holds; also while a server runs
    Inspect(inspect::Asked),
    /// Check an app and the settings, say what is in the app, and exit
    Check {
        /// Folder with config.yaml and schema.graphql
        app: PathBuf,
    },
    /// Copy the data directory (--data), on which a server may be running
    ///
    /// Everything acknowledged before the backup begins is in it. The copy is read in full before it is declared good.
    Backup {
        /// New folder
        target: PathBuf,
    },
    /// Make a new data directory (--data) from a backup
    Restore {
        /// Folder that `backup` made, or the data directory of a server that has stopped
        source: PathBuf,
    },
    /// Write records to a file, in the order of their keys; no server may be running on the data
    ///
    /// Each is a map of table (database.Table outside the database `data`), id, version and value. In JSON, dates are
    /// {"$date":"2026-11-21T22:53:36.123Z"}, bytes {"$bytes":"base64"}, floats that are no numbers {"$float":"NaN"}, and
    /// maps that look like these {"$map":[["name",value]]}.
    Export {
        /// Folder with config.yaml and schema.graphql [default: the built-in demo]
        app: Option<PathBuf>,
        /// Only this table; may be given several times
        #[arg(long = "table", value_name = "TABLE")]
        tables: Vec<String>,
        /// Form of the records
        #[arg(long, value_enum, default_value_t)]
        format: Form,
        /// File that is made or replaced [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write the records of a file to the data directory; no server may be running on it
    ///
    /// Records are what `export` writes; `version` is ignored, and where `id` is missing the key stands in `value`. The
    /// server's part is done anew: records get new versions, and times that the server sets (@createdTime, @updatedTime,
    /// the expiration of a table) count from the import. Records that exist are replaced. A record that breaks the
    /// schema is reported with the number of its line, and the import goes on; the exit code is then 1.
    Import {
        /// Folder with config.yaml and schema.graphql [default: the built-in demo]; a single argument that is no folder
        /// is the file
        app: Option<PathBuf>,
        /// File to read [default: -, standard input]
        file: Option<PathBuf>,
        /// Form of the records
        #[arg(long, value_enum, default_value_t)]
        format: Form,
    },
}

/// One flag for each of `SETTINGS`: (flag, value) of those given.
struct Flags(Vec<(&'static str, String)>);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let flag = |key: &'static crate::settings::Key| {
            Arg::new(key.flag).long(key.flag).value_name(key.value_name).help(key.help).global(true)
        };
        command.args(SETTINGS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let value = |key: &'static crate::settings::Key| {
            matches.get_one::<String>(key.flag).map(|value| (key.flag, value.clone()))
        };
        Ok(Flags(SETTINGS.iter().filter_map(value).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // --help and --version are such errors too, with code 0. Nothing can be done if the output is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let (mode, app, verb) = match &cli.verb {
        None => (Mode::Dev, None, None),
        Some(Verb::Dev { app }) => (Mode::Dev, app.as_deref(), None),
        Some(Verb::Run { app }) => (Mode::Run, app.as_deref(), None),
        Some(verb @ Verb::Check { app }) => (Mode::Run, Some(app.as_path()), Some(verb)),
        Some(verb @ Verb::Export { app, .. }) => (Mode::Run, app.as_deref(), Some(verb)),
        Some(verb @ Verb::Import { app, file, .. }) => (Mode::Run, split_import(app, file).0, Some(verb)),
        Some(verb) => (Mode::Run, None, Some(verb)),
    };
    let (app, settings) = match load(app, &cli, mode) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_diagnostics(&problems);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let is_offline = !matches!(verb, None | Some(Verb::Check { .. }));
    if let Some(problem) = public_listener(&settings).filter(|_| !is_offline) {
        print_error(&problem);
        return ExitCode::from(EXIT_USAGE);
    }
    if let (Some(Verb::Check { .. }), Err(error)) = (verb, Tls::load(&settings.tls)) {
        print_error(&format!("TLS: {error}"));
        return ExitCode::from(EXIT_USAGE);
    }
    let Some(verb) = verb else { return serve(app, settings, mode) };
    match work(verb, app, &settings) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_error(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// What is done without a server. Gives the exit code.
fn work(verb: &Verb, app: App, settings: &Settings) -> Result<u8, ToolError> {
    let data = settings.data.directory.as_path();
    // Nobody may be reading what is said; the work is done all the same.
    let mut said = std::io::stderr();
    match verb {
        Verb::Dev { .. } | Verb::Run { .. } => {}
        Verb::Verify { json } => return verify::run(data, *json),
        Verb::Repair { accept_loss } => return repair::run(data, *accept_loss),
        Verb::Inspect(asked) => return inspect::run(data, asked),
        Verb::Check { .. } => {
            print_diagnostics(&app.warnings);
            let _ = std::io::stdout().write_all(summary(&app).as_bytes());
        }
        Verb::Backup { target } => {
            let copied = backup::backup(data, target)?;
            let _ = writeln!(said, "backup of {} in {}: {copied}", data.display(), target.display());
        }
        Verb::Restore { source } => {
            let copied = backup::restore(source, data)?;
            let _ = writeln!(said, "{} restored from {}: {copied}", data.display(), source.display());
        }
        Verb::Export { tables, format, output, .. } => {
            let count = transfer::export(data, &app, tables, *format, output.as_deref())?;
            let _ = writeln!(said, "exported {count} records");
        }
        Verb::Import { app: first, file, format } => {
            let file = split_import(first, file).1.filter(|file| *file != Path::new("-"));
            let started = std::time::Instant::now();
            let transfer::Summary { imported, refused } = transfer::import(settings, app, *format, file)?;
            let seconds = started.elapsed().as_secs_f64();
            let _ = writeln!(said, "imported {imported} records, refused {refused}, in {seconds:.1} s");
            if refused > 0 {
                return Err(ToolError::BadInput);
            }
        }
    }
    Ok(0)
}

/// App and file of an import: a single argument is the app if it is a folder.
fn split_import<'a>(first: &'a Option<PathBuf>, second: &'a Option<PathBuf>) -> (Option<&'a Path>, Option<&'a Path>) {
    match (first.as_deref(), second.as_deref()) {
        (Some(file), None) if !file.is_dir() => (None, Some(file)),
        both => both,
    }
}

/// App and settings, or all problems of both.
fn load(app: Option<&Path>, cli: &Cli, mode: Mode) -> Result<(App, Settings), Vec<Diagnostic>> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let layers = Layers {
        folder: PathBuf::from("."),
        file: cli.config.clone(),
        environment: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
        flags: cli.flags.0.clone(),
    };
    let app = app.map_or_else(|| Ok(App::demo()), App::load);
    match (app, layers.read(mode)) {
        (Ok(app), Ok(settings)) => Ok((app, settings)),
        (app, settings) => Err([settings.err(), app.err()].into_iter().flatten().flatten().collect()),
    }
}

fn serve(app: App, settings: Settings, mode: Mode) -> ExitCode {
    start_logging(&settings.log);
    for warning in &app.warnings {
        let place = crate::diagnostic::Place { file: &warning.file, line: warning.line, column: warning.column };
        tracing::warn!("{place}: {}", warning.message);
    }
    match server::run(app, settings, mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whoever reaches a listener may do everything, so only this machine may reach it, and whom the client CA vouches for.
fn public_listener(settings: &Settings) -> Option<String> {
    let refuse = |name: &str, address: &Address, remedy: &str| {
        (!address.is_loopback()).then(|| {
            format!(
                "{name}.address: {address} can be reached from other machines, and no users exist yet: everybody \
                 could read and write everything (expected a loopback address such as localhost:9926{remedy})"
            )
        })
    };
    let vouched = settings.tls.client_auth() == ClientAuth::Required;
    let refuse_tls =
        |name: &str, address: &Address| refuse(name, address, ", or tls.clientAuth: required").filter(|_| !vouched);
    refuse("http", &settings.http.address, "")
        .or_else(|| refuse("mqtt", &settings.mqtt.address, ""))
        .or_else(|| refuse_tls("https", &settings.https_address()))
        .or_else(|| refuse_tls("mqtts", &settings.mqtts_address()))
}

/// To standard error: standard output is for what a command was asked to print.
fn start_logging(log: &LogSettings) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(log.level).with_ansi(false);
    let started = match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        print_error(&format!("logging: {error}"));
    }
}

/// Writes past a closed standard error, where `eprintln!` would panic.
fn print_error(message: &str) {
    let _ = writeln!(std::io::stderr(), "tablecast: {message}");
}

fn print_diagnostics(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let _ = writeln!(std::io::stderr(), "{diagnostic}");
    }
}

/// What `check` prints.
fn summary(app: &App) -> String {
    let rows: Vec<[String; 3]> = app.tables.iter().map(row).collect();
    let header = ["TABLE", "PATHS", "ATTRIBUTES"];
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.chain([header[column].len()]).max().unwrap_or(0)
    };
    let (table_width, paths_width) = (width(0), width(1));
    let rest = if app.rest { "on" } else { "off" };
    let (name, tables, files) = (&app.name, app.tables.len(), app.static_files.len());
    let mut text = format!("app {name}: {tables} tables, {files} static files, rest {rest}\n\n");
    let header = header.map(str::to_owned);
    for [table, paths, attributes] in std::iter::once(&header).chain(&rows) {
        text.push_str(&format!("{table:table_width$}  {paths:paths_width$}  {attributes}\n"));
    }
    text
}

fn row(table: &TableDef) -> [String; 3] {
    let name = match table.database.as_str() {
        "data" => table.name.clone(),
        database => format!("{database}.{}", table.name),
    };
    let paths: Vec<String> = table.exports.iter().map(|export| format!("/{}", export.path)).collect();
    let paths = if paths.is_empty() { "(not exported)".to_owned() } else { paths.join(" ") };
    let attribute = |(index, attribute)| attribute_text(attribute, table.primary_key == Some(index));
    let attributes: Vec<String> = table.attributes.iter().enumerate().map(attribute).collect();
    [name, paths, attributes.join(", ")]
}

/// As in the schema: `id: ID @primaryKey`.
fn attribute_text(attribute: &Attribute, is_key: bool) -> String {
    let role = match attribute.role {
        Role::Plain => "",
        Role::CreatedTime => " @createdTime",
        Role::UpdatedTime => " @updatedTime",
        Role::ExpiresAt => " @expiresAt",
        Role::Virtual => " (not stored)",
    };
    let key = if is_key { " @primaryKey" } else { "" };
    let indexed = if attribute.indexed { " @indexed" } else { "" };
    let required = if attribute.required { "!" } else { "" };
    format!("{}: {}{required}{key}{role}{indexed}", attribute.name, kind_text(&attribute.kind))
}

fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::Any => "Any".to_owned(),
        Kind::Id => "ID".to_owned(),
        Kind::Int => "Int".to_owned(),
        Kind::Long => "Long".to_owned(),
        Kind::Float => "Float".to_owned(),
        Kind::String => "String".to_owned(),
        Kind::Boolean => "Boolean".to_owned(),
        Kind::Date => "Date".to_owned(),
        Kind::BigInt => "BigInt".to_owned(),
        Kind::Bytes => "Bytes".to_owned(),
        Kind::Blob => "Blob".to_owned(),
        Kind::Array(element) => {
            format!("[{}{}]", kind_text(&element.kind), if element.required { "!" } else { "" })
        }
        Kind::Object(object) => {
            let names: Vec<&str> = object.attributes.iter().map(|attribute| attribute.name.as_str()).collect();
            format!("{{{}}}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_consistent() {
        Cli::command().debug_assert();
        let help = Cli::command().render_long_help().to_string();
        for key in SETTINGS {
            assert!(help.contains(&format!("--{} <{}>", key.flag, key.value_name)), "{}", key.flag);
        }
        assert!(help.contains("74  the disk failed"));
    }

    #[test]
    fn flags_before_and_after_the_verb() {
        for (arguments, expected) in [
            ("--http 1 --mqtt off", vec![("http", "1"), ("mqtt", "off")]),
            ("--http 1 dev --mqtt 2", vec![("http", "1"), ("mqtt", "2")]),
            ("run folder --shards=4 --pin false", vec![("shards", "4"), ("pin", "false")]),
            ("check folder", vec![]),
        ] {
            let cli = Cli::try_parse_from(["tablecast"].into_iter().chain(arguments.split(' '))).expect(arguments);
            let flags: Vec<(&str, &str)> = cli.flags.0.iter().map(|(flag, value)| (*flag, value.as_str())).collect();
            assert_eq!(flags, expected, "{arguments}");
        }
        for arguments in ["check", "folder", "dev a b", "--nothing", "run --http"] {
            let parsed = Cli::try_parse_from(["tablecast"].into_iter().chain(arguments.split(' ')));
            assert!(parsed.is_err(), "{arguments}");
        }
    }

    #[test]
    fn public_listeners_are_refused() {
        let mut settings = Settings::defaults(Mode::Run);
        assert_eq!(public_listener(&settings), None);
        settings.mqtt.address = Address::parse("0.0.0.0:1883").expect("an address");
        let problem = public_listener(&settings).expect("refused");
        assert!(problem.starts_with("mqtt.address: 0.0.0.0:1883") && problem.contains("no users exist yet"));
        settings.mqtt.address = Address::Off;
        settings.https.address = Address::parse("0.0.0.0:443");
        let problem = public_listener(&settings).expect("refused");
        assert!(problem.starts_with("https.address: 0.0.0.0:443") && problem.contains("tls.clientAuth: required"));
        settings.tls.client_auth = Some(ClientAuth::Required);
        assert_eq!(public_listener(&settings), None);
    }

    #[test]
    fn the_summary_of_the_demo() {
        let lines = "app demo: 2 tables, 3 static files, rest on\n\n\
                     TABLE    PATHS      ATTRIBUTES\n\
                     Topics   / /Topics  topic: String @primaryKey, value: String, updated_at: Date @updatedTime @indexed\n\
                     Sensors  /Sensors   id: ID @primaryKey, location: String, temp: Float\n";
        assert_eq!(summary(&App::demo()), lines);
    }
}
