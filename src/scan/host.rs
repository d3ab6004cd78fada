//! The machine itself.

use crate::model::{Bytes, Host};

/// What `uname(2)` and `sysconf(_SC_PAGESIZE)` say.
pub fn host() -> Host {
    let uname = rustix::system::uname();
    Host {
        hostname: uname.nodename().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        page_size: Bytes(rustix::param::page_size() as u64),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn pages_are_a_power_of_two() {
        assert!(super::host().page_size.0.is_power_of_two());
    }
}
