//! Reading the settings: the file, over it the environment, over it the command line.

use std::path::{Path, PathBuf};

use ruma::OwnedServerName;
use toml::{Table, Value};

use crate::{
    Config, Secret,
    example::{SECTIONS, is_string},
    macros::Section,
};

/// What every environment variable of ours begins with.
pub const ENV_PREFIX: &str = "MYELIN_";

/// Environment variables which begin like settings and belong to the command line instead.
const ENV_OF_COMMAND_LINE: [&str; 1] = ["MYELIN_CONFIG"];

/// Where settings come from; later ones go before earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file, if there is one.
    pub file: Option<PathBuf>,
    /// Environment variables as name and value. Those which do not begin with [`ENV_PREFIX`] are passed over.
    pub env: Vec<(String, String)>,
    /// Settings of the command line: `section.field` and its value.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// `file` and this process's environment.
    pub fn process(file: Option<PathBuf>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            file,
            env,
            flags: Vec::new(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A section, setting or variable which does not exist.
    #[error("{origin}: there is no setting {name}{hint}")]
    Unknown {
        /// The file, "environment" or "command line".
        origin: String,
        /// What was written.
        name: String,
        /// The setting which was perhaps meant.
        hint: String,
    },
    /// A setting is missing or its value is of no use.
    #[error("{field}: {problem}")]
    Invalid {
        /// The setting, as `section.field`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Config {
    /// Reads, merges and validates all settings. Errors name the setting.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut settings = match &sources.file {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        for (name, value) in &sources.env {
            if let Some(setting) = setting_of_variable(name)? {
                set(&mut settings, "environment", &setting, value)?;
            }
        }
        for (setting, value) in &sources.flags {
            set(&mut settings, "command line", setting, value)?;
        }
        from_table(settings)
    }

    /// The default settings of a server with this name.
    pub fn for_server(name: OwnedServerName) -> Config {
        let server = Table::from_iter([("name".to_owned(), Value::from(name.as_str()))]);
        let settings = Table::from_iter([("server".to_owned(), Value::Table(server))]);
        from_table(settings).expect("the defaults are valid")
    }
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let settings: Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    let origin = path.display().to_string();
    for (section, fields) in &settings {
        let Value::Table(fields) = fields else {
            return Err(unknown(&origin, section));
        };
        if !SECTIONS.iter().any(|doc| doc.name == section) {
            return Err(unknown(&origin, section));
        }
        for field in fields.keys() {
            if is_string(section, field).is_none() {
                return Err(unknown(&origin, &format!("{section}.{field}")));
            }
        }
    }
    Ok(settings)
}

/// The setting which an environment variable means; `None` for variables which are not ours.
fn setting_of_variable(name: &str) -> Result<Option<String>, ConfigError> {
    let Some(setting) = name.strip_prefix(ENV_PREFIX) else {
        return Ok(None);
    };
    if ENV_OF_COMMAND_LINE.contains(&name) {
        return Ok(None);
    }
    match setting.split_once("__") {
        Some((section, field)) => Ok(Some(format!("{section}.{field}").to_ascii_lowercase())),
        None => Err(ConfigError::Unknown {
            origin: "environment".to_owned(),
            name: name.to_owned(),
            hint: format!("; settings are written {ENV_PREFIX}<SECTION>__<SETTING>"),
        }),
    }
}

/// Overrides one setting with a value that came as text.
fn set(settings: &mut Table, origin: &str, setting: &str, text: &str) -> Result<(), ConfigError> {
    let (section, field) = setting
        .split_once('.')
        .ok_or_else(|| unknown(origin, setting))?;
    let value = match is_string(section, field) {
        None => return Err(unknown(origin, setting)),
        Some(true) => Value::from(text),
        Some(false) => parse_value(text).map_err(|problem| ConfigError::Invalid {
            field: setting.to_owned(),
            problem,
        })?,
    };
    let fields = settings
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(fields) = fields {
        fields.insert(field.to_owned(), value);
    }
    Ok(())
}

fn parse_value(text: &str) -> Result<Value, String> {
    let document = format!("value = {text}");
    toml::from_str::<Table>(&document)
        .ok()
        .and_then(|mut table| table.remove("value"))
        .ok_or_else(|| format!("\"{text}\" is not a TOML value"))
}

fn from_table(mut settings: Table) -> Result<Config, ConfigError> {
    Ok(Config {
        server: section(&mut settings)?,
        listen: section(&mut settings)?,
        registration: {
            // Before validation, so that what a file holds is checked like what stands inline.
            let name = crate::Registration::DOC.name;
            resolve_secret(&mut settings, name, "token", "token_file")?;
            section(&mut settings)?
        },
        accounts: section(&mut settings)?,
        rooms: section(&mut settings)?,
        rate_limits: section(&mut settings)?,
        limits: section(&mut settings)?,
        federation: section(&mut settings)?,
        presence: section(&mut settings)?,
        well_known: section(&mut settings)?,
        log: section(&mut settings)?,
        metrics: section(&mut settings)?,
    })
}

fn section<S: Section>(settings: &mut Table) -> Result<S, ConfigError> {
    let name = S::DOC.name;
    let fields = settings
        .remove(name)
        .unwrap_or_else(|| Value::Table(Table::new()));
    let invalid = |field: &str, problem: String| ConfigError::Invalid {
        field: format!("{name}.{field}"),
        problem,
    };
    let section: S =
        fields
            .clone()
            .try_into()
            .map_err(|error| match blamed_field::<S>(&fields) {
                Some((field, problem)) => invalid(field, problem),
                None => ConfigError::Invalid {
                    field: name.to_owned(),
                    problem: error.message().to_owned(),
                },
            })?;
    section
        .validate()
        .map_err(|error| invalid(error.field, error.problem))?;
    Ok(section)
}

/// The field because of which a section cannot be read, and what is wrong with it.
///
/// A deserialiser stops at the first bad value without always saying where it was, so each given field is read
/// alone beside samples of the others, and what a section lacks is found by leaving out nothing else.
fn blamed_field<S: Section>(fields: &Value) -> Option<(&'static str, String)> {
    let fields = fields.as_table()?;
    let sample = |field: &crate::macros::FieldDoc| parse_value(field.sample?).ok();
    for blamed in S::DOC.fields {
        let trial: Table = S::DOC
            .fields
            .iter()
            .filter_map(|field| {
                let value = if field.name == blamed.name {
                    fields.get(field.name).cloned()
                } else {
                    sample(field)
                };
                Some((field.name.to_owned(), value?))
            })
            .collect();
        if let Err(error) = Value::Table(trial).try_into::<S>() {
            let problem = match fields.get(blamed.name) {
                Some(_) => error.message().to_owned(),
                None => "is required".to_owned(),
            };
            return Some((blamed.name, problem));
        }
    }
    None
}

/// Reads a secret given by file into the inline setting; refuses both at once.
fn resolve_secret(
    settings: &mut Table,
    section: &str,
    inline: &'static str,
    file: &'static str,
) -> Result<(), ConfigError> {
    let Some(Value::Table(fields)) = settings.get_mut(section) else {
        return Ok(());
    };
    let Some(Value::String(path)) = fields.get(file) else {
        return Ok(());
    };
    let invalid = |problem: String| ConfigError::Invalid {
        field: format!("{section}.{file}"),
        problem,
    };
    if fields.contains_key(inline) {
        return Err(invalid(format!(
            "cannot be given together with {section}.{inline}"
        )));
    }
    let secret = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("cannot read {path}: {error}")))?;
    let secret = Secret::new(secret.trim_end());
    fields.insert(inline.to_owned(), Value::from(secret.expose()));
    Ok(())
}

fn unknown(origin: &str, name: &str) -> ConfigError {
    ConfigError::Unknown {
        origin: origin.to_owned(),
        name: name.to_owned(),
        hint: nearest(name),
    }
}

/// `; did you mean …?` for the setting whose name is most like `name`, if any is.
fn nearest(name: &str) -> String {
    let known = SECTIONS.iter().flat_map(|section| {
        let fields = section
            .fields
            .iter()
            .map(|field| format!("{}.{}", section.name, field.name));
        std::iter::once(section.name.to_owned()).chain(fields)
    });
    known
        .map(|known| (distance(&known, name), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| format!("; did you mean {known}?"))
        .unwrap_or_default()
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{RegistrationMode, example_toml};

    fn load(toml: &str) -> Result<Config, String> {
        load_with(toml, &[], &[])
    }

    fn load_with(
        toml: &str,
        env: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(toml.as_bytes()).expect("it can be written");
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        Config::load(&Sources {
            file: Some(file.path().to_owned()),
            env: owned(env),
            flags: owned(flags),
        })
        .map_err(|error| error.to_string())
    }

    const MINIMAL: &str = "[server]\nname = \"example.org\"\n";

    #[test]
    fn the_committed_example_is_what_the_doc_comments_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config.example.toml");
        let generated = example_toml("example.org");
        if std::env::var_os("UPDATE_EXAMPLE").is_some() {
            std::fs::write(&path, &generated).expect("the example can be written");
        }
        let committed = std::fs::read_to_string(&path).expect("the example is committed");
        assert!(
            committed == generated,
            "config.example.toml is stale; run this test with UPDATE_EXAMPLE=1"
        );
    }

    #[test]
    fn every_line_of_the_example_can_be_uncommented() {
        let example = example_toml("example.org")
            .lines()
            // Examples of a setting whose alternative is also shown.
            .filter(|line| !line.starts_with("#token_file"))
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect::<String>()
            .replace("#tls_addresses = []", "tls_addresses = [\"[::]:8448\"]")
            .replace("tls_addresses = []", "tls_addresses = [\"[::]:8448\"]");
        let config = load(&example).expect("the example is valid");
        assert_eq!(config.well_known.support_contacts.len(), 1);
    }

    #[test]
    fn the_defaults_are_safe() {
        let config = load(MINIMAL).expect("the minimal file is valid");
        assert_eq!(config.server.name, "example.org");
        assert_eq!(config.registration.mode, RegistrationMode::Closed);
        assert!(config.rate_limits.enabled);
        assert!(config.listen.addresses.iter().all(|a| a.ip().is_loopback()));
    }

    #[test]
    fn unknown_settings_are_refused_with_a_hint() {
        let error = load("[server]\nname = \"a.b\"\ndata_dri = \"x\"").expect_err("a typing error");
        assert!(error.contains("server.data_dri"), "{error}");
        assert!(error.contains("did you mean server.data_dir?"), "{error}");
        let error = load("[sever]\nname = \"a.b\"").expect_err("a typing error");
        assert!(error.contains("did you mean server?"), "{error}");
        let error =
            load("[server]\nname = \"a.b\"\n[rate_limits]\nlogin = { per_second = 1, brust = 2 }")
                .expect_err("a typing error");
        assert!(error.starts_with("rate_limits.login: "), "{error}");
        assert!(error.contains("brust"), "{error}");
    }

    #[test]
    fn bad_values_name_their_setting() {
        for (toml, field) in [
            ("", "server.name: is required"),
            ("[server]\nname = \"no spaces\"", "server.name: "),
            ("[server]\nname = 5", "server.name: "),
            (
                "[server]\nname = \"a.b\"\nmemory_budget = \"5 MiB\"",
                "server.memory_budget: ",
            ),
            (
                "[server]\nname = \"a.b\"\nmemory_budget = \"much\"",
                "server.memory_budget: ",
            ),
            (
                "[server]\nname = \"a.b\"\npublic_base_url = \"a.b\"",
                "server.public_base_url: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[listen]\naddresses = [\"8008\"]",
                "listen.addresses: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[listen]\naddresses = []",
                "listen.addresses: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[listen]\ntls_addresses = [\"0.0.0.0:8448\"]",
                "listen.tls_certificate: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[registration]\nmode = \"maybe\"",
                "registration.mode: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[registration]\nmode = \"token\"",
                "registration.token: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[rooms]\ndefault_version = \"13\"",
                "rooms.default_version: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[accounts]\naccess_token_lifetime = \"1s\"",
                "accounts.access_token_lifetime: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[log]\nfilter = \"info,myelin_rooms=loud\"",
                "log.filter: ",
            ),
            (
                "[server]\nname = \"a.b\"\n[limits]\nmax_request_body = \"1 B\"",
                "limits.max_request_body: ",
            ),
        ] {
            let error = load(toml).expect_err(toml);
            assert!(error.starts_with(field), "{toml:?} gave {error:?}");
        }
    }

    #[test]
    fn a_syntax_error_names_the_line() {
        let error = load("[server]\nname = ").expect_err("not TOML");
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn the_environment_goes_before_the_file_and_flags_before_both() {
        let env = [
            ("PATH", "/bin"),
            ("MYELIN_CONFIG", "x.toml"),
            ("MYELIN_SERVER__NAME", "env.example.org"),
            ("MYELIN_SERVER__MEMORY_BUDGET", "268435456"),
            ("MYELIN_RATE_LIMITS__ENABLED", "false"),
            ("MYELIN_RATE_LIMITS__LOGIN", "{ per_second = 2, burst = 7 }"),
            ("MYELIN_LISTEN__ADDRESSES", "[\"0.0.0.0:8008\"]"),
        ];
        let flags = [("server.name", "flag.example.org")];
        let config = load_with(MINIMAL, &env, &flags).expect("valid settings");
        assert_eq!(config.server.name, "flag.example.org");
        assert_eq!(
            config.server.memory_budget.map(|size| size.0),
            Some(1 << 28)
        );
        assert!(!config.rate_limits.enabled);
        assert_eq!(config.rate_limits.login.burst, 7);
        assert_eq!(config.listen.addresses[0].to_string(), "0.0.0.0:8008");
    }

    #[test]
    fn unknown_variables_and_flags_are_refused() {
        for name in ["MYELIN_SERVER__NMAE", "MYELIN_NAME", "MYELIN_NOTHING__NAME"] {
            let error = load_with(MINIMAL, &[(name, "x")], &[]).expect_err(name);
            assert!(error.starts_with("environment: "), "{error}");
        }
        let error = load_with(MINIMAL, &[], &[("server", "x")]).expect_err("no field");
        assert!(error.starts_with("command line: "), "{error}");
    }

    #[test]
    fn a_secret_comes_inline_or_from_a_file_but_not_both() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(b"from-a-file\n").expect("it can be written");
        let path = file.path().display();
        let by_file =
            format!("{MINIMAL}[registration]\nmode = \"token\"\ntoken_file = \"{path}\"\n");
        let config = load(&by_file).expect("valid settings");
        let token = config.registration.token.expect("the file's secret");
        assert_eq!(token.expose(), "from-a-file");

        let error = load(&format!("{by_file}token = \"inline\"\n")).expect_err("both");
        assert!(error.starts_with("registration.token_file: "), "{error}");
        let missing = format!("{MINIMAL}[registration]\ntoken_file = \"/nonexistent/secret\"\n");
        let error = load(&missing).expect_err("no such file");
        assert!(
            error.starts_with("registration.token_file: cannot read"),
            "{error}"
        );
    }
}
