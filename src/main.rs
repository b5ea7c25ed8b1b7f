//! The `tablecast` binary: argv → verb → exit code. All of it is in `tablecast::cli`.

fn main() -> std::process::ExitCode {
    tablecast::cli::main()
}
