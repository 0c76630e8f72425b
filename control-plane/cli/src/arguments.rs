//! What can be asked for.

use std::time::{Duration, SystemTime};

use access::AccessFlags;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Operates a cluster: agents, frameworks, tasks, quota and more, through the APIs of its Mesos master.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, propagate_version = true, max_term_width = 140)]
pub struct Arguments {
    /// The master: host:port, https://host:port, several of them separated by commas, or zk://host:port,host:port/path
    #[arg(long, short, global = true, value_name = "MASTER", default_value = "127.0.0.1:5050", env = "ORCHESTRATOR_MASTER")]
    pub master: String,
    /// How results are printed
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    /// Whom to trust, and who is asking
    #[command(flatten)]
    pub access: AccessFlags,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Agents; with one of them, all about it
    #[command(alias = "agent")]
    Agents {
        /// Id, the end of an id such as S3, or host name
        agent: Option<String>,
    },
    /// Frameworks; with one of them, all about it
    #[command(alias = "framework")]
    Frameworks {
        /// Id, the end of an id such as 0001, or name
        framework: Option<String>,
        /// Those that are over, too
        #[arg(long)]
        all: bool,
    },
    /// Roles: weight, quota, what their frameworks have
    Roles,
    /// Tasks: list, show, kill
    #[command(alias = "task")]
    Tasks(TasksFlags),
    /// What a task has written, from its sandbox
    Logs(LogsFlags),
    /// Run a command beside a task, in its container's namespaces
    Exec(ExecFlags),
    /// Let an agent's tasks end, and offer it no more
    Drain {
        /// Id, the end of an id, or host name
        agent: String,
        /// The longest time that a task may take to end, e.g. 10m; as long as its own policy says when left out
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        /// Mark it gone for ever once it is drained
        #[arg(long)]
        mark_gone: bool,
    },
    /// Offer an agent no more; its tasks go on
    Deactivate {
        /// Id, the end of an id, or host name
        agent: String,
    },
    /// Offer an agent again, drained or deactivated
    Reactivate {
        /// Id, the end of an id, or host name
        agent: String,
    },
    /// Mark an agent gone: its tasks are lost, and it may never come back
    Gone {
        /// Id, the end of an id, or host name
        agent: String,
    },
    /// Maintenance of machines: schedule, down, up
    Maintenance(MaintenanceFlags),
    /// Guarantees and limits of roles
    Quota(QuotaFlags),
    /// Weights of roles
    Weights(WeightsFlags),
    /// Reserve resources of an agent for a role
    Reserve(ReserveFlags),
    /// Take a reservation back
    Unreserve(ReserveFlags),
    /// Persistent volumes: list, create, destroy
    #[command(alias = "volume")]
    Volumes(VolumesFlags),
    /// End a framework and all its tasks
    Teardown {
        /// Id, the end of an id, or name
        framework: String,
    },
    /// The whole state, as JSON
    State,
    /// Who leads
    Leader,
    /// Keep ZooKeeper ensembles in step, and move clients from one to another
    Zk(zksync_service::cli::ZkFlags),
    /// Marathon: HAProxy in front of its apps, and definitions moved from one to another
    #[command(subcommand)]
    Marathon(MarathonFlags),
    /// Print the completion of a shell, e.g. `orchestrator completion bash >/etc/bash_completion.d/orchestrator`
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `marathon`.
#[derive(Debug, Subcommand)]
pub enum MarathonFlags {
    /// Keep an HAProxy in front of Marathon's apps, by their HAPROXY_* labels
    Lb(lb::LbArgs),
    /// What is defined.
    #[command(flatten)]
    Definitions(marathon_migrate::MarathonCommand),
}

/// `tasks`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TasksFlags {
    /// What about them
    #[command(subcommand)]
    pub command: Option<TasksCommand>,
    /// Which of them to list
    #[command(flatten)]
    pub which: WhichTasks,
}

/// Which tasks.
#[derive(Clone, Debug, Default, Args)]
pub struct WhichTasks {
    /// Of this framework: id, the end of an id, or name
    #[arg(long, value_name = "FRAMEWORK")]
    pub framework: Option<String>,
    /// On this agent: id, the end of an id, or host name
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    /// In this state, e.g. running
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Those that are over, too
    #[arg(long)]
    pub all: bool,
}

/// `tasks …`.
#[derive(Debug, Subcommand)]
pub enum TasksCommand {
    /// List tasks
    List(WhichTasks),
    /// All about a task
    Show {
        /// Id, the beginning of an id, or name
        task: String,
    },
    /// Kill a task's container at its agent; its framework is told that it was killed, and may start another
    Kill {
        /// Id, the beginning of an id, or name
        task: String,
        /// Signal to send, by number; without, all of the container is ended
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=64))]
        signal: Option<i32>,
    },
}

/// `logs`.
#[derive(Debug, Args)]
pub struct LogsFlags {
    /// Id, the beginning of an id, or name
    pub task: String,
    /// File in the sandbox
    #[arg(default_value = "stdout")]
    pub file: String,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// So many lines from the end; all without
    #[arg(long, short = 'n', value_name = "LINES")]
    pub lines: Option<u64>,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct ExecFlags {
    /// Give the command a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Pass on what is typed
    #[arg(long, short)]
    pub interactive: bool,
    /// User in the container
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Id, the beginning of an id, or name
    pub task: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `maintenance`.
#[derive(Debug, Args)]
pub struct MaintenanceFlags {
    /// What about it
    #[command(subcommand)]
    pub command: Option<MaintenanceCommand>,
}

/// `maintenance …`.
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Machines that are drained or down, and the windows ahead
    Status,
    /// Add a window to the schedule
    Schedule {
        /// Machines: host name, or host name=address
        #[arg(required = true)]
        machines: Vec<String>,
        /// When it begins: a time such as 2030-01-31T22:00:00Z, or a span from now such as 10m
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
        start: SystemTime,
        /// How long it lasts; for ever without
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
    },
    /// Take machines out of the schedule; all of them without any
    Unschedule {
        /// Machines: host name, or host name=address
        machines: Vec<String>,
    },
    /// Take scheduled machines down: their agents are shut down
    Down {
        /// Machines: host name, or host name=address
        #[arg(required = true)]
        machines: Vec<String>,
    },
    /// Bring machines back
    Up {
        /// Machines: host name, or host name=address
        #[arg(required = true)]
        machines: Vec<String>,
    },
}

/// `quota`.
#[derive(Debug, Args)]
pub struct QuotaFlags {
    /// What about it
    #[command(subcommand)]
    pub command: Option<QuotaCommand>,
}

/// `quota …`.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// All of it
    List,
    /// Set guarantee and limit of a role; what is left out is none
    Set {
        /// The role
        role: String,
        /// At least so much, e.g. 'cpus:4;mem:8192'
        #[arg(long, value_name = "RESOURCES")]
        guarantee: Option<String>,
        /// At most so much
        #[arg(long, value_name = "RESOURCES")]
        limit: Option<String>,
        /// Even where the cluster cannot keep it
        #[arg(long)]
        force: bool,
    },
    /// No guarantee and no limit any more
    Remove {
        /// The role
        role: String,
    },
}

/// `weights`.
#[derive(Debug, Args)]
pub struct WeightsFlags {
    /// What about them
    #[command(subcommand)]
    pub command: Option<WeightsCommand>,
}

/// `weights …`.
#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// All that are not 1
    List,
    /// Set weights
    Set {
        /// role=weight
        #[arg(required = true, value_parser = parse_weight)]
        weights: Vec<(String, f64)>,
    },
}

/// `reserve` and `unreserve`.
#[derive(Debug, Args)]
pub struct ReserveFlags {
    /// Id of an agent, the end of one, or host name
    pub agent: String,
    /// e.g. 'cpus:2;mem:1024;ports:[31000-31009]'
    pub resources: String,
    /// For this role
    #[arg(long)]
    pub role: String,
    /// Principal of the reservation; that of the request without
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// key=value, may be given again
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    pub label: Vec<(String, String)>,
}

/// `volumes`.
#[derive(Debug, Args)]
pub struct VolumesFlags {
    /// What about them
    #[command(subcommand)]
    pub command: Option<VolumesCommand>,
}

/// `volumes …`.
#[derive(Debug, Subcommand)]
pub enum VolumesCommand {
    /// All of them
    List,
    /// Make one of reserved disk
    Create {
        /// Id of an agent, the end of one, or host name
        agent: String,
        /// Id of the volume
        id: String,
        /// Size in MB
        #[arg(long, value_name = "MB")]
        size: f64,
        /// Role for which the disk is reserved
        #[arg(long)]
        role: String,
        /// Where tasks see it
        #[arg(long, value_name = "PATH")]
        path: String,
        /// Principal of the reservation and of the volume; that of the request without
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// key=value of the reservation, may be given again
        #[arg(long, value_name = "LABEL", value_parser = parse_label)]
        label: Vec<(String, String)>,
    },
    /// Destroy one with all that is in it
    Destroy {
        /// Id of an agent, the end of one, or host name
        agent: String,
        /// Id of the volume
        id: String,
    },
}

fn parse_weight(text: &str) -> Result<(String, f64), String> {
    let (role, weight) = text.split_once('=').ok_or("it is role=weight")?;
    let weight: f64 = weight.parse().map_err(|_| format!("{weight:?} is no number"))?;
    if weight.is_finite() && weight > 0.0 { Ok((role.to_owned(), weight)) } else { Err("a weight is above 0".to_owned()) }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "it is key=value".to_owned())
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    if let Ok(span) = humantime::parse_duration(text) {
        return Ok(SystemTime::now() + span);
    }
    humantime::parse_rfc3339_weak(text).map_err(|_| "neither a time such as 2030-01-31T22:00:00Z nor a span such as 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }

    /// What a command has of the name of a flag that goes with all commands would be taken for that flag, or the other way round.
    #[test]
    fn no_command_has_a_flag_of_the_name_of_one_that_goes_with_all() {
        fn look(command: &clap::Command, above: &[clap::Id]) {
            for own in command.get_arguments() {
                assert!(!above.contains(own.get_id()), "{}: {}", command.get_name(), own.get_id());
            }
            let global = command.get_arguments().filter(|own| own.is_global_set()).map(|own| own.get_id().clone());
            let above: Vec<clap::Id> = above.iter().cloned().chain(global).collect();
            command.get_subcommands().for_each(|below| look(below, &above));
        }
        look(&Arguments::command(), &[]);
    }

    #[test]
    fn commands_are_taken_as_people_write_them() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for line in [
            "orchestrator agents",
            "orchestrator -m a:5050,b:5050 agents S3 -o json",
            "orchestrator tasks",
            "orchestrator tasks --framework web --all",
            "orchestrator tasks list --state running",
            "orchestrator tasks kill web.1 --signal 15",
            "orchestrator logs -f -n 10 web.1 stderr",
            "orchestrator exec -it web.1 sh -c ls",
            "orchestrator drain S1 --grace 10m --mark-gone",
            "orchestrator quota set web --guarantee cpus:1;mem:64 --force",
            "orchestrator weights set web=2 batch=0.5",
            "orchestrator reserve S1 cpus:1 --role web --label a=b",
            "orchestrator maintenance schedule h1 h2=10.0.0.2 --start 2030-01-31T22:00:00Z --duration 1h",
            "orchestrator completion zsh",
            "orchestrator zk status",
            "orchestrator zk status -o json",
            "orchestrator zk plan --from a:1 --to b:1 --save plan.json",
            "orchestrator zk start plan.json --wait",
            "orchestrator zk conflicts m --decided --show 1 --value a",
            "orchestrator zk verify m",
            "orchestrator zk cutover m --wait",
            "orchestrator zk rollback m --wait",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
        for line in ["orchestrator", "orchestrator exec web", "orchestrator weights set web=0", "orchestrator tasks kill x --signal 0"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
