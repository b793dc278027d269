//! `[limits]`: how large a request may be.

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::ByteSize,
};

section! {
    /// How large a request may be.
    pub struct Limits in "limits" {
        /// The largest body of a request. An event is never larger than 64 KiB, whatever stands here.
        #[serde(default = "default_max_request_body")]
        pub max_request_body: ByteSize,
    }
}

fn default_max_request_body() -> ByteSize {
    ByteSize::mebibytes(4)
}

impl Section for Limits {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        if self.max_request_body < ByteSize(128 << 10) {
            return Err(Invalid::new("max_request_body", "must be at least 128 KiB"));
        }
        Ok(())
    }
}
