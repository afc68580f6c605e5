//! Asks the memprofs that run.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{ControlError, Folder, MOST_BYTES, Request, State};

/// An answer takes as long as going over to another mode.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of asking one memprof.
#[derive(Debug)]
pub enum Answer {
    /// It answered.
    State(State),
    /// It runs and did not answer; its socket, and why.
    Silent(String, io::Error),
}

/// Asks every memprof that runs, or the one with that process id.
///
/// # Errors
/// [`ControlError::Folder`]
pub fn ask_all(
    folder: &Folder,
    pid: Option<i32>,
    request: &Request,
) -> Result<Vec<Answer>, ControlError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder.0).map_err(|error| folder.error(error))? {
        let name = entry.map_err(|error| folder.error(error))?.file_name();
        let name = name.to_string_lossy().into_owned();
        let of = name
            .strip_prefix("attach-")
            .and_then(|rest| rest.strip_suffix(".sock"))
            .and_then(|pid| pid.parse::<i32>().ok());
        if of.is_some() && (pid.is_none() || of == pid) {
            names.push(name);
        }
    }
    names.sort();
    let mut answers = Vec::new();
    for name in names {
        let path = folder.join(&name);
        match ask(&path, request) {
            Ok(state) => answers.push(Answer::State(state)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // It was killed. Whoever else takes it away is as good.
                let _ = fs::remove_file(&path);
            }
            Err(error) => answers.push(Answer::Silent(name, error)),
        }
    }
    Ok(answers)
}

fn ask(socket: &Path, request: &Request) -> io::Result<State> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let line = serde_json::to_string(request)? + "\n";
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(MOST_BYTES)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
