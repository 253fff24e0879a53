"""What a machine tells of itself: read from folders that look like boards."""

import numpy as np
import pytest
from benchmark_support import FakeClock, put

from edgevision.host.benchmark import machine, memory, power, sensors

PI_CPU = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0b\n"
X86_CPU = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_vnni\n"


def test_the_environment_of_an_x86_and_of_a_board(tmp_path):
    x86 = put(tmp_path / "x86", {
        "proc/cpuinfo": X86_CPU,
        "proc/meminfo": "MemTotal:        8000 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    })  # fmt: skip
    found = machine.environment(x86)
    assert (found["cpu"], found["features"], found["memory_bytes"]) == ("AMD EPYC", ["avx2", "avx512_vnni"], 8_192_000)
    assert found["governor"] == "performance, powersave"
    assert found["packages"]["numpy"] == np.__version__
    board = put(tmp_path / "pi", {"proc/cpuinfo": PI_CPU, "proc/device-tree/model": "Raspberry Pi 5 Model B\0"})
    assert machine.environment(board)["cpu"] == "Raspberry Pi 5 Model B (CPU part 0xd0b)"
    assert machine.environment(board)["features"] == ["asimd", "asimddp"]
    assert machine.environment(tmp_path)["governor"] is None


def test_load_and_what_all_cores_have_done(tmp_path):
    root = put(
        tmp_path, {"proc/loadavg": "0.5 1.5 2.5 1/100 42\n", "proc/stat": "cpu  100 200 300 9999 9999 10 20 30 0 0\n"}
    )
    assert machine.load_average(root) == [0.5, 1.5, 2.5]
    assert machine.busy_s(root) == pytest.approx(6.6)  # clock ticks of 10 ms; idle, iowait and guests do not count
    assert machine.load_average(tmp_path / "none") is None
    assert machine.busy_s(tmp_path / "none") is None
    assert (machine.busy_s() or 0) > 0


def test_sensors_of_a_board_that_is_too_hot(tmp_path):
    cool = put(tmp_path / "cool", {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal", "sys/class/thermal/thermal_zone0/temp": "48500\n",
        "sys/class/thermal/thermal_zone1/type": "cpu-thermal", "sys/class/thermal/thermal_zone1/temp": "51000\n",
        "sys/class/thermal/thermal_zone2/type": "off", "sys/class/thermal/thermal_zone2/temp": "-274000\n",
        "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0", "sys/class/thermal/cooling_device0/cur_state": "0",
        "sys/class/thermal/cooling_device1/type": "pwm-fan", "sys/class/thermal/cooling_device1/cur_state": "4",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000",
    })  # fmt: skip
    before = sensors.read(cool)
    assert before.temperature_c == {"cpu-thermal": 48.5, "cpu-thermal (thermal_zone1)": 51.0}
    assert (before.clock_mhz, before.clock_max_mhz, before.throttle_events, before.limits) == ([1800.0], 2400.0, 5, [])
    assert sensors.verdict(before, before) == "no"  # 0x50000 is of the past; a fan that turns holds nothing back
    put(cool, {
        "sys/class/thermal/cooling_device0/cur_state": "2",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "9",
    })  # fmt: skip
    said = sensors.verdict(before, sensors.read(cool))
    for part in (
        "yes: ",
        "under-voltage",
        "throttled",
        "cpufreq-cpu0 held back by cooling (step 2)",
        "4 throttle events",
    ):
        assert part in said
    nothing = sensors.read(tmp_path / "none")
    assert sensors.verdict(nothing, nothing).startswith("not available: ")


def _ina3221(root, millivolt="5000", milliampere="400"):
    device = "sys/class/hwmon/hwmon2/"
    return put(root, {
        device + "name": "ina3221\n", device + "in1_label": "VDD_IN\n", device + "in1_input": millivolt,
        device + "curr1_input": milliampere, "sys/class/hwmon/hwmon0/name": "cpu_thermal",
    })  # fmt: skip


def _rapl(root, microjoule):
    zone = "sys/class/powercap/intel-rapl:0/"
    return put(root, {
        zone + "name": "package-0\n", zone + "energy_uj": str(microjoule), zone + "max_energy_range_uj": "1000000000",
        "sys/class/powercap/intel-rapl:0:0/name": "core", "sys/class/powercap/intel-rapl:0:0/energy_uj": "1",
    })  # fmt: skip


def test_power_of_an_ina3221_is_voltage_times_current(tmp_path):
    meter = power.find(_ina3221(tmp_path))
    assert isinstance(meter, power.Ina3221)
    assert meter.watts(1.0) == {"VDD_IN": 2.0}
    with power.measured(meter, every_s=0.001) as found:
        pass
    assert found == {"meter": "INA3221", "mean_w": {"VDD_IN": 2.0}}


def test_power_of_rapl_is_energy_over_time_and_its_counter_wraps(tmp_path):
    meter = power.find(_rapl(tmp_path, 999_000_000))
    assert isinstance(meter, power.Rapl)
    _rapl(tmp_path, 1_000_000)
    assert meter.watts(0.5) == {"package-0 (intel-rapl:0)": pytest.approx(4.0)}


def test_no_power_meter_is_said_and_so_is_one_that_fails(tmp_path):
    said = str(power.find(tmp_path))
    assert said.startswith("not available: no INA3221")
    with power.measured(said) as found:
        pass
    assert found == {"said": said}
    meter = power.find(_ina3221(tmp_path))
    (tmp_path / "sys/class/hwmon/hwmon2/curr1_input").unlink()
    with power.measured(meter, every_s=0.001, clock=FakeClock()) as found:
        pass
    assert found["said"].startswith("not available: INA3221 cannot be read")
    broken = put(tmp_path / "b", {"sys/class/powercap/intel-rapl:0/name": "package-0"})
    assert str(power.find(broken)).startswith("not available: ")


def test_memory_of_this_process_and_of_one_that_tells_nothing(tmp_path):
    root = put(tmp_path, {"status": "VmHWM:\t 20 kB\nVmRSS:\t 10 kB\n", "smaps_rollup": "Rss: 9 kB\nPss:\t 5 kB\n"})
    assert memory.resident(root) == {"peak_rss_bytes": 20480, "rss_bytes": 10240, "pss_bytes": 5120}
    assert memory.resident(tmp_path / "none") == {"peak_rss_bytes": None, "rss_bytes": None, "pss_bytes": None}
    assert not memory.forget_peak(tmp_path / "none")
    real = memory.resident()
    assert (real["peak_rss_bytes"] or 0) >= (real["rss_bytes"] or 0) > 0
