//! Docker and Podman keep a container's mounts themselves: what is to be told to them.

use crate::model::{Bind, Runtime};

/// The lines that mount `binds` in a container of an engine: for the command line, for
/// Compose, and for Podman's quadlets (podman-systemd.unit(5)). None for what is no engine.
pub fn lines(runtime: Runtime, binds: &[Bind]) -> Vec<String> {
    let engine = match runtime {
        Runtime::Podman => "podman",
        Runtime::Docker => "docker",
        Runtime::Containerd => "nerdctl",
        _ => return Vec::new(),
    };
    let volumes: Vec<String> = binds.iter().map(volume).collect();
    let options: Vec<String> = binds.iter().map(option).collect();
    let mut lines = vec![
        format!("start the container with: {engine} run {} ...", options.join(" ")),
        format!("in a Compose file, under volumes: {}", bullets(&volumes)),
    ];
    if runtime == Runtime::Podman {
        let quadlet: Vec<String> = volumes.iter().map(|v| format!("Volume={v}")).collect();
        lines.push(format!("in a quadlet's [Container]: {}", quadlet.join(" and ")));
    }
    lines
}

fn bullets(volumes: &[String]) -> String {
    volumes.iter().map(|volume| format!("- {volume}")).collect::<Vec<_>>().join(" and ")
}

fn volume(bind: &Bind) -> String {
    format!("{}:{}:ro", bind.source.0.display(), bind.target.0.display())
}

/// `-v`, or the longer form where a colon is part of a path.
fn option(bind: &Bind) -> String {
    let (source, target) =
        (bind.source.0.display().to_string(), bind.target.0.display().to_string());
    match source.contains(':') || target.contains(':') {
        true => format!("--mount type=bind,source={source},target={target},readonly"),
        false => format!("-v {source}:{target}:ro"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContainerPath, HostPath};

    #[test]
    fn the_lines_to_add() {
        let bind = |source: &str| Bind {
            source: HostPath::from(source),
            target: ContainerPath("/cbin".into()),
        };
        let podman = lines(Runtime::Podman, &[bind("/home/cbin")]);
        let expected = [
            "start the container with: podman run -v /home/cbin:/cbin:ro ...",
            "in a Compose file, under volumes: - /home/cbin:/cbin:ro",
            "in a quadlet's [Container]: Volume=/home/cbin:/cbin:ro",
        ];
        assert_eq!(podman, expected);
        let docker = lines(Runtime::Docker, &[bind("/srv/c:bin")]);
        assert!(docker[0].contains("--mount type=bind,source=/srv/c:bin,target=/cbin,readonly"));
        assert_eq!(docker.len(), 2);
    }
}
