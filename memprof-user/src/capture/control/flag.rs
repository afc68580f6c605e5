//! The flag that disables every memprof of this machine.

use std::{fs, io, time::Duration};

use jiff::Timestamp;

use super::{ControlError, Folder};

const FLAG: &str = "disabled";
const NEW_FLAG: &str = ".disabled.new";

/// memprof is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// Until then; `None` until `memprof enable`.
    pub until: Option<Timestamp>,
}

impl Folder {
    /// Whether memprof is disabled now.
    ///
    /// A flag that can't be understood disables: somebody wanted it to.
    ///
    /// # Errors
    /// [`ControlError::Folder`] where that can't be read.
    pub fn disabled(&self) -> Result<Option<Disabled>, ControlError> {
        let text = match fs::read_to_string(self.join(FLAG)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(self.error(error)),
        };
        let until = text.trim().parse::<Timestamp>().ok();
        let is_over = until.is_some_and(|until| until <= Timestamp::now());
        Ok((!is_over).then_some(Disabled { until }))
    }

    /// Disables memprof, for a time or until [`Folder::enable`].
    ///
    /// # Errors
    /// [`ControlError::Folder`]
    pub fn disable(&self, time: Option<Duration>) -> Result<Disabled, ControlError> {
        // A time past all clocks is for good.
        let until = time.and_then(|time| Timestamp::now().checked_add(time).ok());
        let text = until.map_or_else(String::new, |until| format!("{until}\n"));
        // In one step: who reads it half written would be disabled for good.
        let written = fs::write(self.join(NEW_FLAG), text)
            .and_then(|()| fs::rename(self.join(NEW_FLAG), self.join(FLAG)));
        written.map_err(|error| self.error(error))?;
        Ok(Disabled { until })
    }

    /// Ends what [`Folder::disable`] began; whether it was disabled.
    ///
    /// # Errors
    /// [`ControlError::Folder`]
    pub fn enable(&self) -> Result<bool, ControlError> {
        let was = self.disabled()?.is_some();
        match fs::remove_file(self.join(FLAG)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(error)),
            _ => Ok(was),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_until_enabled_or_over() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&root.path().join("run")).expect("made");
        assert_eq!(folder.disabled().expect("read"), None);
        folder.disable(None).expect("written");
        let disabled = folder.disabled().expect("read");
        assert_eq!(disabled, Some(Disabled { until: None }));
        assert!(folder.enable().expect("removed"));
        assert_eq!(folder.disabled().expect("read"), None);
        assert!(!folder.enable().expect("nothing to remove"));

        let hour = folder.disable(Some(Duration::from_secs(3600)));
        assert_eq!(folder.disabled().expect("read"), hour.ok());
        fs::write(folder.join(FLAG), "2020-01-01T00:00:00Z\n").expect("written");
        assert_eq!(folder.disabled().expect("read"), None);
    }

    #[test]
    fn a_flag_that_is_not_understood_disables() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&root.path().join("run")).expect("made");
        for text in [&b"tomorrow"[..], b"\xff\xfe"] {
            fs::write(folder.join(FLAG), text).expect("written");
            let disabled = folder.disabled().expect("read");
            assert_eq!(disabled, Some(Disabled { until: None }));
        }
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let root = tempfile::tempdir().expect("a folder");
        let open = root.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("set");
        assert!(matches!(
            Folder::open(&open),
            Err(ControlError::Insecure { .. })
        ));
        let link = root.path().join("link");
        symlink(root.path(), &link).expect("symlink");
        assert!(Folder::open(&link).is_err());
    }
}
