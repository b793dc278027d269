//! The commands of the command line, one module each. They print to standard output what was asked for, and to
//! standard error what went wrong, as one sentence.

mod ask;
mod check_config;
mod federation;
mod first_run;
mod room;
mod serve;
mod user;

use std::{
    error::Error,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser as _;
use myelin_config::{Config, ConfigError, Sources, example_toml};

use crate::{
    cli::{Cli, Command, SettingArgs},
    control::Request,
    operator::chain,
};

/// The settings file where none is named.
const DEFAULT_FILE: &str = "myelin.toml";

/// What a command comes to. Errors are for people, so they are of any kind.
type Outcome = Result<ExitCode, Box<dyn Error + Send + Sync>>;

/// Runs the command of this process's command line.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            writeln!(io::stderr(), "myelin: {}", chain(&*error)).ok();
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let settings = Settings::new(cli.settings);
    match cli.command {
        Command::Serve { listen } => serve::run(settings, &listen),
        Command::GenerateConfig => {
            let name = settings.server_name().unwrap_or("example.org");
            print(example_toml(name).trim_end())
        }
        Command::CheckConfig => check_config::run(&settings),
        Command::User { command } => user::run(&settings, command),
        Command::Room { command } => room::run(&settings, command),
        Command::Federation { command } => federation::run(&settings, command),
        Command::Backup { directory } => {
            let config = settings.load()?;
            let directory = std::path::absolute(directory)?;
            let answer = ask::ask(&settings, &config, Request::Backup { directory })?;
            let directory = answer["directory"].as_str().unwrap_or_default();
            print(&format!("The backup is in {directory}"))
        }
        Command::Health => {
            let config = settings.load()?;
            let report = ask::ask_running(&config, &Request::Health)?;
            print(&serde_json::to_string_pretty(&report)?)?;
            Ok(match report["status"].as_str() {
                Some("ok" | "degraded") => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            })
        }
    }
}

fn print(text: &str) -> Outcome {
    writeln!(io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// Where this process's settings come from.
struct Settings {
    sources: Sources,
    /// The file that was named, or the default; it may not exist.
    path: PathBuf,
}

impl Settings {
    fn new(args: SettingArgs) -> Self {
        let path = args.config.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let mut sources = Sources::process(None);
        let named = [
            ("server.name", args.server_name),
            ("server.data_dir", args.data_dir),
        ];
        // Later flags go before earlier ones, so that the specific ones win over --set.
        sources.flags = args.set;
        sources.flags.extend(
            named
                .into_iter()
                .filter_map(|(setting, value)| Some((setting.to_owned(), value?))),
        );
        Self { sources, path }
    }

    /// The file, if it is there.
    fn file(&self) -> Option<&Path> {
        self.path.exists().then_some(&*self.path)
    }

    /// The server's name where the command line or the environment says it.
    fn server_name(&self) -> Option<&str> {
        let flag = self.sources.flags.iter().rev();
        let flag = flag.map(|(setting, value)| (setting.as_str(), value));
        let variable = self
            .sources
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        flag.chain(variable)
            .find(|(setting, _)| matches!(*setting, "server.name" | "MYELIN_SERVER__NAME"))
            .map(|(_, value)| value.as_str())
    }

    /// Reads the settings. Without a file the environment and the command line must say everything.
    fn load(&self) -> Result<Config, ConfigError> {
        let mut sources = self.sources.clone();
        if self.file().is_some() || self.server_name().is_none() {
            // Without a name the file is needed, and the error says that it is missing.
            sources.file = Some(self.path.clone());
        }
        Config::load(&sources)
    }
}
