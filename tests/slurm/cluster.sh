#!/usr/bin/env bash
# A real SLURM of two nodes on this one machine, for tests. Needs root, and on Debian: apt-get install slurm-wlm munge
#
#   cluster.sh start DIR    writes its files under DIR, starts it, waits for its nodes; prints what to export
#   cluster.sh node DIR N   starts slurmd of node N (n1 or n2) again
#   cluster.sh stop DIR     cancels its jobs and ends its processes, by the ids that they wrote down
#
# Nothing outside DIR is written, and nothing but the loopback interface is listened on. Time limits are to the minute;
# a job of the partition `low` is queued again, after 20 s of grace, as soon as one of `high` wants its node.
set -euo pipefail

command=${1:?start, node or stop}
dir=${2:?a folder}
PORT=${HARNESS_SLURM_PORT:-26817}
NODES=(n1 n2)

fail() { echo "cluster.sh: $*" >&2; exit 1; }

configure() {
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" > /dev/null || fail "$program is missing; on Debian: apt-get install slurm-wlm munge"
    done
    [ "$(id -u)" = 0 ] || fail "slurmd starts jobs for other users, so this needs root"
    # munged trusts a key and a socket only where nobody else could have put them.
    mkdir -p "$dir"/{munge,state,log} && chmod 755 "$dir" && chmod 700 "$dir/munge"
    (umask 077 && head -c 1024 /dev/urandom > "$dir/munge/key")
    cat > "$dir/slurm.conf" <<CONF
ClusterName=harness
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
AuthType=auth/munge
# A job that is queued again waits until its last credential is over: two minutes elsewhere.
AuthInfo=socket=$dir/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmdSpoolDir=$dir/spool-%n
SlurmdParameters=config_overrides
# Neither cgroups nor a database: it works in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=2,defer
ReturnToService=2
SlurmdTimeout=10
KillWait=10
MinJobAge=20
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + 2)) CPUs=2 RealMemory=4000
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=60 DefaultTime=30
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=60 DefaultTime=30
CONF
}

start_node() { mkdir -p "$dir/spool-$1" && slurmd -N "$1"; }

start() {
    [ ! -e "$dir/slurmctld.pid" ] || fail "a cluster was started in $dir already: cluster.sh stop $dir"
    configure
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed" --num-threads=2
    slurmctld -c
    for node in "${NODES[@]}"; do start_node "$node"; done
    for ((second = 0; second < 60; second++)); do
        if [ "$(sinfo --noheader --Node --partition=low --format=%t 2> /dev/null | grep -c '^idle$')" = 2 ]; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 1
    done
    tail -n 5 "$dir"/log/*.log >&2
    fail "the nodes did not come up in 60 s"
}

# The process whose id stands in a file is gone when this returns.
end() {
    local pid signal=TERM
    pid=$(cat "$1" 2> /dev/null) || return 0
    for ((tenth = 0; tenth < 200; tenth++)); do
        if [ $((tenth % 100)) = 0 ]; then kill -s "$signal" "$pid" 2> /dev/null && signal=KILL; fi
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.1
    done
    rm -f "$1"
}

stop() {
    [ -e "$dir/slurmctld.pid" ] || return 0
    scancel --user=root 2> /dev/null || true
    for ((second = 0; second < 20; second++)); do
        [ -n "$(squeue --noheader 2> /dev/null)" ] || break
        sleep 1
    done
    for node in "${NODES[@]}"; do end "$dir/slurmd-$node.pid"; done
    end "$dir/slurmctld.pid"
    end "$dir/munged.pid"
}

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
export SLURM_CONF=$dir/slurm.conf
case $command in
    start) start ;;
    node) start_node "${3:?n1 or n2}" ;;
    stop) stop ;;
    *) fail "not '$command' but start, node or stop" ;;
esac
