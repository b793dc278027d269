//! `section!`: declares a section once, as the struct that holds it and as the table the manual is printed from.

/// One field of a section, as the manual describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldDoc {
    /// The key in the file.
    pub(crate) name: &'static str,
    /// The lines of the doc comment.
    pub(crate) doc: &'static [&'static str],
    /// A value in TOML to show for a field which has no default.
    pub(crate) sample: Option<&'static str>,
}

/// One section of the file, as the manual describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionDoc {
    /// The name between the brackets.
    pub(crate) name: &'static str,
    /// The lines of the struct's doc comment.
    pub(crate) doc: &'static [&'static str],
    /// The fields in the order of their declaration.
    pub(crate) fields: &'static [FieldDoc],
}

/// A section of the configuration: its place in the file and its own validation.
pub(crate) trait Section: serde::Serialize + serde::de::DeserializeOwned {
    /// The section's manual.
    const DOC: SectionDoc;

    /// Checks what the types alone cannot express.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// A value that has the right type and is nevertheless of no use.
#[derive(Debug)]
pub(crate) struct Invalid {
    /// The key inside its section.
    pub(crate) field: &'static str,
    /// What is wrong with it and what would be right.
    pub(crate) problem: String,
}

impl Invalid {
    /// Says what is wrong with `field`.
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// Declares the struct of a section and its [`SectionDoc`] from the same words.
///
/// `=> "…"` after a type gives the manual a value to show for a field without a default.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        pub struct $Section:ident in $section_name:literal {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                pub $field:ident: $ty:ty $(=> $sample:literal)?,
            )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $Section {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                pub $field: $ty,
            )*
        }

        impl $Section {
            pub(crate) const SECTION: crate::macros::SectionDoc = crate::macros::SectionDoc {
                name: $section_name,
                doc: &[$($section_doc),*],
                fields: &[$(
                    crate::macros::FieldDoc {
                        name: stringify!($field),
                        doc: &[$($doc),*],
                        sample: section!(@sample $($sample)?),
                    }
                ),*],
            };
        }
    };
    (@sample) => { None };
    (@sample $sample:literal) => { Some($sample) };
}

pub(crate) use section;
