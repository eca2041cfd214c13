//! The scripts that the engine runs. Each runs atomically, so that nodes never see half of a change.

/// What a node asks of the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Script {
    Append,
    Beat,
    Tick,
    Leave,
    Snapshot,
    Join,
    Restore,
    Keep,
    Page,
    Merge,
}

impl Script {
    pub const COUNT: usize = 10;

    pub fn source(self) -> &'static str {
        macro_rules! script {
            ($file:literal) => {
                concat!(include_str!("scripts/common.lua"), "\n", include_str!($file))
            };
        }
        match self {
            Self::Append => script!("scripts/append.lua"),
            Self::Beat => script!("scripts/beat.lua"),
            Self::Tick => script!("scripts/tick.lua"),
            Self::Leave => script!("scripts/leave.lua"),
            Self::Snapshot => script!("scripts/snapshot.lua"),
            Self::Join => script!("scripts/join.lua"),
            Self::Restore => script!("scripts/restore.lua"),
            Self::Keep => script!("scripts/keep.lua"),
            Self::Page => script!("scripts/page.lua"),
            Self::Merge => script!("scripts/merge.lua"),
        }
    }
}
