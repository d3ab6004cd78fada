//! Enumerations whose names stand in documents and on the command line, read back.

use super::{
    Applets, Method, MountMeans, Outcome, RootState, RunState, Runtime, Select, StoreFormat,
};

/// `Type::from_name`: the inverse of `Type::name`.
macro_rules! from_name {
    ($($type:ident: $($variant:ident)+;)+) => {$(
        impl $type {
            /// The value of this name, as a document has it.
            pub fn from_name(name: &str) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|value| value.name() == name)
            }
        }
    )+};
}

from_name! {
    Applets: Auto Rewrite Chain Complete;
    Method: Symlink Reflink Hardlink;
    MountMeans: Nspawn Unit Lxc Oci Host None;
    Outcome: Done RolledBack Superseded Parked Undone;
    RootState: Running Stopped Unknown;
    RunState: Applied Partial RolledBack Undone PartlyUndone Unfinished;
    Runtime: Host Directory Nspawn Lxc Oci Docker Podman Containerd Bubblewrap;
    Select: Multicall Elf All;
    StoreFormat: Dir Erofs;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        assert_eq!(Runtime::from_name("bubblewrap"), Some(Runtime::Bubblewrap));
        assert_eq!(Outcome::from_name("rolled_back"), Some(Outcome::RolledBack));
        assert_eq!(MountMeans::from_name("None"), None);
    }
}
