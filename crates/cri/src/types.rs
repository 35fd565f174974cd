//! What the generated messages lack.

use std::fmt;

use crate::v1;

impl fmt::Debug for v1::AuthConfig {
    /// Shows whose credentials they are and never the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}
