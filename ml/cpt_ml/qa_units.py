"""Problems of units and simple physics, with whole numbers throughout."""

from __future__ import annotations

from cpt_ml.qa_template import NAMES, Draw, Template, Value

GRAVITY = 10  # m/s², as school problems take it


def journey(d: Draw) -> dict[str, Value]:
    speed, hours, minutes = 6 * d.whole(5, 20), d.whole(1, 5), 10 * d.whole(1, 5)
    whole, part = speed * hours, speed * minutes // 60
    return {"speed": speed, "hours": hours, "minutes": minutes, "whole": whole, "part": part, "answer": whole + part}


def metres(d: Draw) -> dict[str, Value]:
    km, m = d.whole(2, 25), d.whole(50, 950)
    laps = d.whole(2, 6)
    once = km * 1000 + m
    return {"who": d.pick(NAMES), "km": km, "m": m, "laps": laps, "thousands": km * 1000, "once": once,
            "answer": once * laps}  # fmt: skip


def seconds(d: Draw) -> dict[str, Value]:
    h, m, s = d.whole(1, 9), d.whole(2, 59), d.whole(2, 59)
    return {"h": h, "m": m, "s": s, "a": h * 3600, "b": m * 60, "answer": h * 3600 + m * 60 + s}


def density(d: Draw) -> dict[str, Value]:
    rho, a, b, c = d.whole(2, 19), d.whole(2, 9), d.whole(2, 9), d.whole(2, 9)
    volume = a * b * c
    return {"rho": rho, "a": a, "b": b, "c": c, "volume": volume, "answer": rho * volume}


def force(d: Draw) -> dict[str, Value]:
    mass, start, gain, time = d.whole(2, 60), d.whole(1, 9), d.whole(1, 6), d.whole(2, 9)
    end = start + gain * time
    return {"mass": mass, "start": start, "end": end, "time": time, "change": gain * time, "gain": gain,
            "answer": mass * gain}  # fmt: skip


def falling(d: Draw) -> dict[str, Value]:
    time = d.whole(2, 9)
    return {"time": time, "g": GRAVITY, "square": time * time, "speed": GRAVITY * time,
            "answer": GRAVITY * time * time // 2}  # fmt: skip


def ohm(d: Draw) -> dict[str, Value]:
    current, first, second = d.whole(2, 9), d.whole(2, 30), d.whole(2, 30)
    return {"current": current, "first": first, "second": second, "sum": first + second,
            "answer": current * (first + second)}  # fmt: skip


def celsius(d: Draw) -> dict[str, Value]:
    c = 5 * d.whole(1, 30)
    return {"c": c, "fifth": c // 5, "nine": c // 5 * 9, "answer": c // 5 * 9 + 32}


def energy(d: Draw) -> dict[str, Value]:
    watts, hours, days = 50 * d.whole(2, 40), 2 * d.whole(1, 6), 10 * d.whole(1, 9)
    daily = watts * hours
    return {"watts": watts, "hours": hours, "days": days, "daily": daily, "all": daily * days,
            "answer": daily * days // 1000}  # fmt: skip


TEMPLATES = [
    Template(
        "journey",
        journey,
        (
            "A train travels at a constant {speed} km/h. How many kilometres does it cover in {hours} h {minutes} min?",
            "一列火车以每小时{speed}千米的速度匀速行驶，{hours}小时{minutes}分钟行驶多少千米？",
        ),
        (
            "In {hours} h it covers {speed} × {hours} = {whole} km.\n"
            "In {minutes} min it covers {speed} × {minutes} ÷ 60 = "
            "{part} km.\nIn all {whole} + {part} = {answer} km.",
            "{hours}小时行驶 {speed} × {hours} = {whole} 千米。\n"
            "{minutes}分钟行驶 {speed} × {minutes} ÷ 60 = {part} 千米。\n"
            "一共行驶 {whole} + {part} = {answer} 千米。",
        ),
    ),
    Template(
        "metres",
        metres,
        (
            "A path around a lake is {km} km {m} m long. {who} walks it {laps} times. How many metres is that?",
            "环湖小路长{km}千米{m}米，{who}走了{laps}圈，一共走了多少米？",
        ),
        (
            "One kilometre has 1000 m, so {km} km = {thousands} m.\nOnce around is {thousands} + {m} = {once} m.\n"
            "{laps} times is {once} × {laps} = {answer} m.",
            "1千米是1000米，所以{km}千米 = {thousands}米。\n一圈是 {thousands} + {m} = {once} 米。\n"
            "{laps}圈是 {once} × {laps} = {answer} 米。",
        ),
    ),
    Template(
        "seconds",
        seconds,
        (
            "A recording is {h} h {m} min {s} s long. How many seconds are that?",
            "一段录音长{h}小时{m}分{s}秒，合多少秒？",
        ),
        (
            "An hour has 3600 s: {h} × 3600 = {a}.\nA minute has 60 s: {m} × 60 = {b}.\n"
            "Together: {a} + {b} + {s} = {answer}.",
            "1小时是3600秒：{h} × 3600 = {a}。\n1分是60秒：{m} × 60 = {b}。\n合计：{a} + {b} + {s} = {answer}。",
        ),
    ),
    Template(
        "density",
        density,
        (
            "A block of metal measures {a} cm × {b} cm × {c} cm and has a density of {rho} g/cm³. "
            "What is its mass in grams?",
            "一块金属长{a}厘米、宽{b}厘米、高{c}厘米，密度是每立方厘米{rho}克。它的质量是多少克？",
        ),
        (
            "The volume is V = {a} × {b} × {c} = {volume} cm³.\nThe mass is m = ρ · V = {rho} × {volume} = {answer} g.",
            "体积 V = {a} × {b} × {c} = {volume} 立方厘米。\n质量 m = ρ · V = {rho} × {volume} = {answer} 克。",
        ),
    ),
    Template(
        "force",
        force,
        (
            "A cart of {mass} kg speeds up evenly from {start} m/s to {end} m/s in {time} s. "
            "What net force in newtons acts on it?",
            "一辆质量为{mass}千克的小车在{time}秒内由每秒{start}米匀加速到每秒{end}米。它受到的合力是多少牛？",
        ),
        (
            "The change of speed is {end} − {start} = {change} m/s.\n"
            "The acceleration is a = {change} ÷ {time} = {gain} m/s².\n"
            "The force is F = m · a = {mass} × {gain} = {answer} N.",
            "速度的变化是 {end} − {start} = {change} 米每秒。\n加速度 a = {change} ÷ {time} = {gain} 米每二次方秒。\n"
            "合力 F = m · a = {mass} × {gain} = {answer} 牛。",
        ),
    ),
    Template(
        "falling",
        falling,
        (
            "A stone is dropped from rest and falls for {time} s without air resistance (g = {g} m/s²). "
            "How many metres does it fall?",
            "一块石头由静止开始自由下落{time}秒，不计空气阻力（g = {g} 米每二次方秒）。它下落了多少米？",
        ),
        (
            "Its final speed is v = g · t = {g} × {time} = {speed} m/s.\nThe distance is s = g · t² ÷ 2 = "
            "{g} × {square} ÷ 2 = {answer} m.",
            "末速度 v = g · t = {g} × {time} = {speed} 米每秒。\n"
            "下落的距离 s = g · t² ÷ 2 = {g} × {square} ÷ 2 = {answer} 米。",
        ),
    ),
    Template(
        "ohm",
        ohm,
        (
            "Two resistors of {first} Ω and {second} Ω are in series, and a current of {current} A flows. "
            "What is the voltage across both, in volts?",
            "两个电阻分别为{first}欧和{second}欧，串联后通过的电流是{current}安。两端的总电压是多少伏？",
        ),
        (
            "In series the resistances add up: R = {first} + {second} = {sum} Ω.\n"
            "By Ohm's law U = R · I = {sum} × {current} = {answer} V.",
            "串联电阻相加：R = {first} + {second} = {sum} 欧。\n"
            "由欧姆定律 U = R · I = {sum} × {current} = {answer} 伏。",
        ),
    ),
    Template(
        "celsius",
        celsius,
        (
            "An oven is at {c} °C. What is that in degrees Fahrenheit?",
            "烤箱的温度是{c}摄氏度，合多少华氏度？",
        ),
        (
            "F = C × 9 ÷ 5 + 32.\n{c} ÷ 5 = {fifth}, and {fifth} × 9 = {nine}.\n{nine} + 32 = {answer}.",
            "华氏度 = 摄氏度 × 9 ÷ 5 + 32。\n{c} ÷ 5 = {fifth}，{fifth} × 9 = {nine}。\n{nine} + 32 = {answer}。",
        ),
    ),
    Template(
        "energy",
        energy,
        (
            "A machine of {watts} W runs {hours} hours a day. How many kilowatt-hours does it use in {days} days?",
            "一台功率为{watts}瓦的机器每天运行{hours}小时，{days}天一共用电多少千瓦时？",
        ),
        (
            "A day needs {watts} × {hours} = {daily} Wh.\n{days} days need {daily} × {days} = {all} Wh.\n"
            "1 kWh is 1000 Wh, so {all} ÷ 1000 = {answer} kWh.",
            "每天用电 {watts} × {hours} = {daily} 瓦时。\n{days}天用电 {daily} × {days} = {all} 瓦时。\n"
            "1千瓦时是1000瓦时，所以 {all} ÷ 1000 = {answer} 千瓦时。",
        ),
    ),
]
