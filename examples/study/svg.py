"""Makes matplotlib's SVG smaller without changing the picture."""
import re
import xml.etree.ElementTree as xml

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
FONTS = "'DejaVu Sans','Bitstream Vera Sans',Verdana,sans-serif"
SHORT = 30  # a marker with a shorter path is repeated in each place, because a reference would not be shorter


def lighter(svg):
    """The same picture: coordinates to a tenth of a point, styles and clips as classes, no groups, no metadata."""
    return Writer(xml.fromstring(svg)).text()


class Writer:
    def __init__(self, root):
        self.root, self.body, self.classes = root, [], {}
        self.by_id = {e.get("id"): e for e in root.iter() if e.get("id")}
        self.clips = {clip.get("id"): f"c{n}" for n, clip in enumerate(root.iter(SVG + "clipPath"))}
        shapes = [path_data(self.marker(e).get("d")) for e in root.iter(SVG + "use")]
        shared = dict.fromkeys(d for d in shapes if len(d) >= SHORT and shapes.count(d) > 1)
        self.shapes = {d: f"m{n}" for n, d in enumerate(shared)}
        for child in root:
            self.write(child, None)

    def text(self):
        box = " ".join(map(short, numbers(self.root.get("viewBox"))))
        size = " ".join(f'{k}="{short(float(self.root.get(k)[:-2]))}pt"' for k in ("width", "height"))
        rules = ["*{stroke-linejoin:round;stroke-linecap:butt}", f"text{{font-family:{FONTS}}}"]
        rules += [f".{name}{{{style}}}" for style, name in self.classes.items()]
        rules += [f".{c}{{clip-path:url(#{c})}}" for c in self.clips.values()]
        definitions = [f'<clipPath id="{c}">{rectangle(self.by_id[i][0])}</clipPath>' for i, c in self.clips.items()]
        definitions += [f'<path id="{m}" d="{d}"/>' for d, m in self.shapes.items()]
        return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="{box}">', "<style>", *rules, "</style>",
                          "<defs>", *definitions, "</defs>", *self.body, "</svg>"]) + "\n"

    def write(self, e, clip):
        """Writes an element and what is in it. Definitions are left to `text`."""
        clip = e.get("clip-path", clip)
        kind = e.tag.removeprefix(SVG)
        if kind == "g" and e.get("transform"):
            self.body.append(self.formula(e))
        elif kind == "g":
            for child in e:
                self.write(child, clip)
        elif kind == "path" and e.get("d"):  # a line without numbers has no path
            self.body.append(f'<path{self.look(e.get("style"), clip)} d="{path_data(e.get("d"))}"/>')
        elif kind == "use":
            self.body.append(self.use(e, clip))
        elif kind == "text":
            self.body.append(f"<text{self.look(e.get('style'))}{place(e)}>{escaped(e.text)}</text>")
        elif kind not in ("path", "defs", "metadata"):
            raise ValueError(f"the figure has a <{kind}>; expected only what matplotlib draws plots with")

    def marker(self, use):
        return self.by_id[use.get(HREF)[1:]]

    def look(self, style, clip=None):
        """The class attribute for a style and a clip."""
        names = []
        if style:
            rule = ";".join(f"{k}:{v}" for k, v in properties(style).items())
            names.append(self.classes.setdefault(rule, f"s{len(self.classes)}"))
        if clip:
            names.append(self.clips[clip[5:-1]])
        return f' class="{" ".join(names)}"' if names else ""

    def use(self, e, clip):
        """A marker in its place. It has its own style and, for what that leaves open, the style of the place."""
        drawn, x, y = self.marker(e), float(e.get("x")), float(e.get("y"))
        style = f"{e.get('style', '')};{drawn.get('style', '')}"
        m = self.shapes.get(path_data(drawn.get("d")))
        if not m:
            return f'<path{self.look(style, clip)} d="{path_data(drawn.get("d"), x, y)}"/>'
        use = f'<use href="#{m}"{self.look(style)} x="{short(x)}" y="{short(y)}"/>'
        return f"<g{self.look('', clip)}>{use}</g>" if clip else use  # x and y would move the clip, too

    def formula(self, g):
        """A number with an exponent: one text whose parts follow one another."""
        x, y = numbers(g.get("transform"))[:2]
        spans = g[0].findall(SVG + "tspan")
        first, heights = spans[0], [float(s.get("y")) for s in spans]
        parts = [escaped(first.text)]
        for s, above, here in zip(spans[1:], heights, heights[1:]):
            parts.append(f'<tspan{self.look(s.get("style"))} dy="{short(here - above)}">{escaped(s.text)}</tspan>')
        at = f' x="{short(x + numbers(first.get("x"))[0])}" y="{short(y + heights[0])}"'
        return f"<text{self.look(first.get('style'))}{at}>{''.join(parts)}</text>"


def numbers(text):
    return [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def short(x):
    return f"{round(x, 1) + 0:.1f}".removesuffix(".0")


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def properties(style):
    """A style's properties by name; the last one counts. `text` gives all texts one family of fonts."""
    out = {}
    for one in filter(str.strip, style.split(";")):
        name, value = (part.strip() for part in one.split(":", 1))
        if name == "font":
            name, value = "font-size", value.split()[0]
        out[name] = re.sub(r"\d+\.\d+", lambda x: f"{float(x[0]):.2f}".rstrip("0").rstrip("."), value)
    return out


def rectangle(e):
    return "<rect " + " ".join(f'{k}="{short(float(e.get(k)))}"' for k in ("x", "y", "width", "height")) + "/>"


def place(e):
    """Where a text is, as attributes. One that is turned by other than a right angle has its place in the transform."""
    moves = numbers(e.get("transform") or "")
    x, y, turn = moves if e.get("x") is None else (float(e.get("x")), float(e.get("y")), moves[0] if moves else 0)
    x, y = short(x), short(y)
    return f' transform="translate({x} {y})rotate({short(turn)})"' if turn else f' x="{x}" y="{y}"'


def path_data(d, dx=0.0, dy=0.0):
    """The path moved by (dx, dy), each point relative to the one before. Tenths are whole numbers, so no error adds up."""
    out, at, last = [], (0, 0), ""
    for command, arguments in re.findall(r"([MLQCz])([^MLQCz]*)", d):
        values = numbers(arguments)
        points = [(round(10 * (x + dx)), round(10 * (y + dy))) for x, y in zip(values[::2], values[1::2])]
        letter, moved = command.lower(), [v for x, y in points for v in (x - at[0], y - at[1])]
        if command == "M":
            letter, moved = "M", [v for p in points for v in p]
        elif command == "L" and 0 in moved:
            letter, moved = ("h", moved[:1]) if moved[1] == 0 else ("v", moved[1:])
        text = "".join((" " if k and v >= 0 else "") + short(v / 10) for k, v in enumerate(moved))
        if letter != last or letter in "Mz":
            text = letter + text
        elif moved[0] >= 0:
            text = " " + text
        out.append(text)
        at, last = points[-1] if points else at, letter
    return "".join(out)
