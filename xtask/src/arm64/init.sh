#!/bin/busybox sh
# The first process of the virtual machine: mounts what is there, runs the tests, and switches off.
# Each line of /results/tests is a test's name and its command. Of each the output is left in
# /results/NAME.txt, and at its end the exit code and the seconds in /results/NAME.status.
/bin/busybox --install -s /usr/bin
/bin/busybox mkdir -p /usr/sbin /proc /sys /dev /tmp /results /built /memprof/php /memprof/release
export PATH=/usr/bin:/usr/sbin HOME=/ CARGO_TARGET_DIR=/memprof RUST_BACKTRACE=1 CI=true
ln -sf /bin/busybox /usr/sbin/chroot
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tracefs trace /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
for module in crc32c_generic virtio_pci virtio_blk ext4 9pnet_virtio 9p; do
    # What is built in has no file.
    modprobe "$module" 2>/dev/null
done

share() {
    mkdir -p "$2"
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,cache=loose,$3" "$1" "$2"
}
share results /results rw
share built /built ro
# The harness finds the PHP scripts where they were when it was compiled.
share tests "$(cat /results/tests-folder)" ro
# The disks come in the order of their names.
disk=a
for build in $(cat /results/builds); do
    mkdir -p "/memprof/php/$build"
    mount -t ext4 "/dev/vd$disk" "/memprof/php/$build"
    disk=$(echo "$disk" | tr a-y b-z)
done
cp /built/memprof /memprof/release/memprof

echo "linux $(uname -r), $(cat /proc/uptime | cut -d' ' -f1) s after its start"
while read -r name command; do
    start=$(date +%s)
    timeout 600 $command >"/results/$name.txt" 2>&1 </dev/null
    status=$?
    echo "$status $(($(date +%s) - start))" >"/results/$name.status"
    echo "$name: $status"
done </results/tests
sync
poweroff -f
