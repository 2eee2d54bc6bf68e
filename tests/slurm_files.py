"""What administrators of Slurm wrote: parts of files that several tests read."""

# of a slurm.conf: preemption by partition, and a line that only an administrator may have run
BY_PARTITION = """\
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=30,bf_window=2880,\\
bf_max_job_test=7
Prolog=/bin/evil
PartitionName=DEFAULT MaxTime=2-00:00:00 State=UP
"""
# as `sacctmgr dump` writes it: two accounts of unlike shares, and a class that preempts
DUMP = """\
# To edit this file start with a cluster line for the new cluster
Cluster - 'mine':Fairshare=1:QOS='normal'
QOS - 'normal':Priority=0
QOS - 'urgent':Priority=100:Preempt=normal:MaxTRESPerUser=cpu=9,gres/gpu=16
Parent - 'root'
User - 'root':DefaultAccount='root':AdminLevel='Administrator':Fairshare=1
Account - 'heavy':Description='heavy: all':Organization='x':Fairshare=1:QOS='normal'
Account - 'light':Description='light':Fairshare=9:GrpTRES=cpu=100,gres/gpu=16:QOS='normal,urgent'
Parent - 'heavy'
User - 'ann':DefaultAccount='heavy':Fairshare=1
Parent - 'light'
User - 'bob':DefaultAccount='light':Fairshare=1
"""
