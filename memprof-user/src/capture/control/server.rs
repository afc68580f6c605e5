//! The socket by which a memprof that runs is reached.

use std::{
    fs::Permissions,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{ControlError, Folder, MOST_BYTES, Request, State};

/// Who asks is given so long to say what, because nothing else is done meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

/// The socket; it goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// Somebody who asked, and waits for the answer.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    stream: UnixStream,
}

impl Server {
    /// Listens, under the process's own id.
    ///
    /// # Errors
    /// [`ControlError::Folder`]
    pub fn listen(folder: &Folder) -> Result<Self, ControlError> {
        let path = folder.join(&format!("attach-{}.sock", std::process::id()));
        // What an earlier process of this id left behind.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(|error| folder.error(error))?;
        let server = Self { listener, path };
        server
            .listener
            .set_nonblocking(true)
            .and_then(|()| std::fs::set_permissions(&server.path, Permissions::from_mode(0o600)))
            .map_err(|error| folder.error(error))?;
        Ok(server)
    }

    /// Whoever asks now. Who may not ask, or says nothing that is understood, is turned away.
    pub fn asked(&self) -> Option<Asked> {
        let (stream, _) = self.listener.accept().ok()?;
        is_allowed(&stream).then_some(())?;
        let request = read(&stream).ok()?;
        Some(Asked { request, stream })
    }
}

impl Asked {
    /// Answers.
    pub fn answer(mut self, state: &State) {
        let Ok(mut line) = serde_json::to_string(state) else {
            return;
        };
        line.push('\n');
        // Who asked has gone where this fails.
        let _ = self.stream.write_all(line.as_bytes());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Who finds it takes it away.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Only root, and the user that memprof runs as.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

fn read(stream: &UnixStream) -> io::Result<Request> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(MOST_BYTES)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
