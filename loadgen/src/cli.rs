//! The command line.

use crate::compare::{self, Budget, Figure};
use crate::figures::Report;
use crate::floor;
use crate::history;
use crate::profile::{self, Choice};
use crate::report::{self, html, text};
use crate::run::{Options, RuntimeKind, run};
use crate::scenario::{self, Scenario};
use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

const EXAMPLES: &str = "\
Examples:
  loadgen run fan-out-qos1 -s seconds=10 --html report.html
  loadgen run fan-out-latency -s rate=500 --hdr latency.hlog
  loadgen show storm > mine.toml; loadgen run ./mine.toml
  loadgen show mosquitto > staging.toml; loadgen run mixed --server ./staging.toml --pid 1234
  loadgen compare fan-out --server tablecast --server mosquitto --rounds 7 --budget per-cpu=1.1";

/// Load for MQTT, SSE, WebSocket, HTTP and redis servers, with figures per second of the server's CPU time.
///
/// Ends with 0 if everything that was promised was kept, 1 if not (or a budget was exceeded), 2 for any other problem.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenarios against one server.
    Run(Run),
    /// Run a scenario against several servers in turn, and give ratios to the last one.
    Compare(Compare),
    /// Draw a history of comparisons.
    Plot(Plot),
    /// List the ready-made scenarios and servers.
    List,
    /// Show a scenario with all that can be set, or a server, as the file that it could be.
    Show { name: String },
    /// Be the least that a server can do, to measure others against (`--server floor`).
    Floor { address: SocketAddr },
}

#[derive(Args)]
struct Plot {
    /// Written by `compare --history`, or counts (perf/instructions-history.csv)
    history: PathBuf,

    /// Where the plot goes, as SVG
    svg: PathBuf,
}

#[derive(Args)]
struct Common {
    /// Replace a value of the scenario, for example `seconds=10` (several times)
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Cores of the generator, each with a thread
    #[arg(long, value_delimiter = ',', default_value = "1")]
    cores: Vec<usize>,

    /// Cores of the server
    #[arg(long, value_delimiter = ',', default_value = "0")]
    server_cores: Vec<usize>,

    /// Runtime of the generator: figures of two that agree are the server's
    #[arg(long, value_enum, default_value_t)]
    runtime: RuntimeKind,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write the plots alone
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Args)]
struct Run {
    /// Ready-made scenarios, or files
    #[arg(required = true)]
    scenarios: Vec<String>,

    /// A ready-made server or a file; `name=program` starts another program; words behind it are more arguments
    #[arg(long, default_value = "tablecast")]
    server: String,

    /// The server's process, where it runs already
    #[arg(long)]
    pid: Option<u32>,

    /// Write latencies as an HdrHistogram log (one scenario)
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Compare {
    /// A ready-made scenario, or a file
    scenario: String,

    /// As for `run`, at least two; ratios are to the last one
    #[arg(long = "server", required = true, num_args = 1)]
    servers: Vec<String>,

    /// How often each has its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Fail if the first server is worse than the last by more than this, with confidence: `p99=1.2` (several times)
    #[arg(long, value_name = "FIGURE=FACTOR")]
    budget: Vec<String>,

    /// Add the first server's ratios to a history (CSV)
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,

    /// What is noted with them, such as the two revisions
    #[arg(long, value_name = "TEXT", default_value = "", requires = "history")]
    note: String,

    #[command(flatten)]
    common: Common,
}

pub fn main() -> Result<bool, String> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match Cli::parse().command {
        Command::Run(run) => run_all(&run),
        Command::Compare(compare) => compare_all(&compare),
        Command::Plot(plot) => {
            let entries = history::read(&plot.history)?;
            write(&Some(plot.svg), || html::over_time(&entries))?;
            Ok(true)
        }
        Command::Floor { address } => floor::serve(address),
        Command::List => {
            list();
            Ok(true)
        }
        Command::Show { name } => {
            let server = profile::BUILT_IN.iter().find(|(own, _)| *own == name);
            let text = match server {
                Some((_, text)) => (*text).to_owned(),
                None => toml::to_string(&Scenario::load(&name, &[])?).map_err(|error| error.to_string())?,
            };
            print!("{text}");
            Ok(true)
        }
    }
}

fn list() {
    println!("Scenarios:");
    for (name, _) in scenario::BUILT_IN {
        let description = Scenario::load(name, &[]).map(|own| own.description).unwrap_or_default();
        println!("  {name:<20}{description}");
    }
    println!("Servers:");
    for (name, text) in profile::BUILT_IN {
        let description = toml::from_str::<profile::Profile>(text).map(|own| own.description).unwrap_or_default();
        println!("  {name:<20}{description}");
    }
}

fn write(path: &Option<PathBuf>, text: impl FnOnce() -> String) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text()).map_err(|error| format!("{}: {error}", path.display()))
}

impl Common {
    fn write(&self, reports: &[Report]) -> Result<(), String> {
        write(&self.json, || report::json(reports))?;
        write(&self.html, || html::page(reports))?;
        write(&self.svg, || html::plots(reports))
    }

    /// One run on a fresh server.
    fn once(&self, name: &str, scenario: &Scenario, choice: &Choice, pid: Option<u32>) -> Result<Report, String> {
        let server = choice.start(&self.server_cores, scenario.topics)?;
        let process = pid.or(server.process);
        let shows_progress = std::io::stderr().is_terminal();
        let (cores, server_cores) = (self.cores.clone(), self.server_cores.clone());
        let options = Options { runtime: self.runtime, cores, process, server_cores, shows_progress };
        run(name, &server.name, scenario, &server.target, &options)
    }
}

/// One turn of a comparison, in a process of its own: what it leaves behind (sockets, memory) is not the next one's.
fn turn(own: &Compare, server: &str) -> Result<Report, String> {
    let common = &own.common;
    let problem = |what: String| format!("{server}: {what}");
    let json = std::env::temp_dir().join(format!("loadgen-{}.json", std::process::id()));
    let joined = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let runtime = <RuntimeKind as clap::ValueEnum>::to_possible_value(&common.runtime);
    let mut command = std::process::Command::new(std::env::current_exe().map_err(|error| problem(error.to_string()))?);
    command.args(["run", &own.scenario, "--server", server, "--json"]).arg(&json);
    command.args(["--cores", &joined(&common.cores), "--server-cores", &joined(&common.server_cores)]);
    command.args(["--runtime", runtime.as_ref().map_or("monoio", |value| value.get_name())]);
    common.set.iter().for_each(|change| _ = command.args(["--set", change]));
    // Its progress and its problems are told where this one's are.
    let status = command.stdout(Stdio::null()).status().map_err(|error| problem(error.to_string()))?;
    if !matches!(status.code(), Some(0 | 1)) {
        return Err(problem("could not be measured".into()));
    }
    let text = std::fs::read_to_string(&json).map_err(|error| problem(error.to_string()))?;
    let _ = std::fs::remove_file(&json);
    let mut reports: Vec<Report> = serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?;
    reports.pop().ok_or_else(|| problem("no figures".into()))
}

fn run_all(own: &Run) -> Result<bool, String> {
    let choice = Choice::parse(&own.server);
    if own.hdr.is_some() && own.scenarios.len() > 1 {
        return Err("an HdrHistogram log is of one scenario".into());
    }
    let mut reports = Vec::new();
    for name in &own.scenarios {
        let scenario = Scenario::load(name, &own.common.set)?;
        let report = own.common.once(name, &scenario, &choice, own.pid)?;
        print!("{}", text::text(&report));
        if let Some(path) = &own.hdr {
            report::hdr(&report, path)?;
        }
        reports.push(report);
    }
    own.common.write(&reports)?;
    Ok(reports.iter().all(Report::is_fine))
}

fn budgets(texts: &[String]) -> Result<Vec<Budget>, String> {
    let parse = |text: &String| {
        let (figure, worse) = text.split_once('=')?;
        let figure = <Figure as clap::ValueEnum>::from_str(figure, true).ok()?;
        Some(Budget { figure, worse: worse.parse().ok().filter(|worse| *worse >= 1.0)? })
    };
    let problem = |text: &String| format!("budget {text:?}: expected figure=factor, for example p99=1.2");
    texts.iter().map(|text| parse(text).ok_or_else(|| problem(text))).collect()
}

fn compare_all(own: &Compare) -> Result<bool, String> {
    let choices: Vec<Choice> = own.servers.iter().map(|text| Choice::parse(text)).collect();
    if choices.len() < 2 || own.rounds == 0 {
        return Err("a comparison takes two servers and a round".into());
    }
    let budgets = budgets(&own.budget)?;
    if !budgets.is_empty() && own.rounds < compare::BUDGET_ROUNDS_MIN {
        return Err(format!(
            "a budget takes {} rounds: fewer show nothing with confidence",
            compare::BUDGET_ROUNDS_MIN
        ));
    }
    let scenario = Scenario::load(&own.scenario, &own.common.set)?;
    let mut rounds: Vec<Vec<Report>> = Vec::new();
    for round in 0..own.rounds {
        // Another one begins each time, so that none always comes after the same one.
        let mut reports: Vec<Option<Report>> = choices.iter().map(|_| None).collect();
        for place in 0..choices.len() {
            let server = (place + round) % choices.len();
            let report = turn(own, &own.servers[server])?;
            eprint!("round {} of {}\n{}", round + 1, own.rounds, text::text(&report));
            reports[server] = Some(report);
        }
        rounds.push(reports.into_iter().flatten().collect());
    }
    let rows = compare::table(&rounds);
    let has_row = |budget: &Budget| rows.iter().any(|row| row.figure == budget.figure);
    if let Some(budget) = budgets.iter().find(|budget| !has_row(budget)) {
        return Err(format!("budget: {} does not come out of scenario {}", budget.figure.name(), own.scenario));
    }
    println!("{}: {}", own.scenario, scenario.description);
    let confidence = 100.0 * rows.first().and_then(|row| row.ratios.first()).map_or(0.0, |ratio| ratio.confidence);
    let last = choices[choices.len() - 1].name();
    println!("{} rounds; ratios to {last}, with {confidence:.0} % confidence", own.rounds);
    let mut is_fine = true;
    for row in &rows {
        println!("{}", row.figure.name());
        for (server, choice) in choices.iter().enumerate() {
            let is_time = matches!(row.figure, Figure::P50 | Figure::P99);
            let show = if is_time { text::duration } else { text::short };
            let ratio = row
                .ratios
                .get(server)
                .map_or(String::new(), |own| format!("{:>8.2} ({:.2} to {:.2})", own.ratio, own.low, own.high));
            println!("  {:<36}{:>12}{ratio}", choice.name(), show(row.medians[server]));
        }
        for budget in budgets.iter().filter(|budget| budget.figure == row.figure) {
            if budget.is_broken(&row.ratios[0]) {
                println!("  OVER BUDGET: worse by more than {}", budget.worse);
                is_fine = false;
            }
        }
    }
    if let Some(path) = &own.history {
        history::add(path, &own.scenario, &own.note, &rows)?;
    }
    let all: Vec<Report> = rounds.into_iter().flatten().collect();
    own.common.write(&all)?;
    let first = choices[0].name();
    Ok(is_fine && all.iter().filter(|report| report.server == first).all(Report::is_fine))
}
