//! `myelin federation …`: this server among others.

use std::process::ExitCode;

use myelin_federation::check::Report;

use super::{Outcome, Settings, ask::ask, print};
use crate::{cli::FederationCommand, control::Request};

pub(super) fn run(settings: &Settings, command: FederationCommand) -> Outcome {
    let config = settings.load()?;
    match command {
        FederationCommand::Check { server, json } => {
            let answer = ask(settings, &config, Request::CheckFederation { server })?;
            let report: Report = serde_json::from_value(answer)?;
            if json {
                print(&serde_json::to_string_pretty(&report)?)?;
            } else {
                print(&report.to_string())?;
            }
            Ok(if report.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        FederationCommand::RotateKey => {
            let answer = ask(settings, &config, Request::RotateKey)?;
            let key_id = answer["key_id"].as_str().unwrap_or_default();
            print(&format!(
                "The server signs with {key_id} from now on. Make a backup: the old key's file is gone."
            ))
        }
    }
}
