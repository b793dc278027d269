//! `myelin user …`: the users of this server.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
};

use myelin_types::{SystemRandom, random_string};
use serde_json::Value;

use super::{Outcome, Settings, ask::ask, print};
use crate::{
    cli::UserCommand,
    control::{Password, Request},
};

/// 24 letters and digits have more than 140 bits.
const GENERATED_LENGTH: usize = 24;

pub(super) fn run(settings: &Settings, command: UserCommand) -> Outcome {
    let config = settings.load()?;
    match command {
        UserCommand::Create {
            name,
            admin,
            generate_password,
        } => {
            let password = password(generate_password)?;
            let request = Request::CreateUser {
                name,
                password: password.clone(),
                admin,
            };
            let answer = ask(settings, &config, request)?;
            print(&format!("Created {}", user_id(&answer)))?;
            print_generated(generate_password, &password)
        }
        UserCommand::List { json } => {
            let answer = ask(settings, &config, Request::ListUsers)?;
            let users = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            let mut out = io::stdout().lock();
            for user in users {
                if json {
                    writeln!(out, "{user}")?;
                } else {
                    writeln!(out, "{}{}", user_id(user), remarks(user))?;
                }
            }
            Ok(std::process::ExitCode::SUCCESS)
        }
        UserCommand::SetPassword {
            name,
            generate_password,
            keep_sessions,
        } => {
            let password = password(generate_password)?;
            let request = Request::SetPassword {
                name,
                password: password.clone(),
                keep_sessions,
            };
            let answer = ask(settings, &config, request)?;
            print(&format!(
                "Changed the password of {} ({} devices logged out)",
                user_id(&answer),
                answer["logged_out"]
            ))?;
            print_generated(generate_password, &password)
        }
        UserCommand::Deactivate { name, erase } => {
            let answer = ask(settings, &config, Request::DeactivateUser { name, erase })?;
            print(&format!("Deactivated {}", user_id(&answer)))
        }
    }
}

fn user_id(answer: &Value) -> &str {
    answer["user_id"].as_str().unwrap_or_default()
}

fn remarks(user: &Value) -> String {
    let mut remarks = String::new();
    for remark in ["admin", "deactivated"] {
        if user[remark] == true {
            remarks.push_str("  ");
            remarks.push_str(remark);
        }
    }
    remarks
}

/// A password made up, typed twice at a terminal, or read from a pipe.
fn password(generate: bool) -> Result<Password, Box<dyn Error + Send + Sync>> {
    if generate {
        return Ok(Password(random_string(
            &SystemRandom::new(),
            GENERATED_LENGTH,
        )));
    }
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        return Ok(Password(line.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let first = rpassword::prompt_password("Password: ")?;
    if rpassword::prompt_password("Once more: ")? != first {
        return Err("the passwords differ".into());
    }
    Ok(Password(first))
}

fn print_generated(generated: bool, password: &Password) -> Outcome {
    if generated {
        print(&format!("Password: {}", password.0))
    } else {
        Ok(std::process::ExitCode::SUCCESS)
    }
}
