// Draws the paths of all optimizers on three functions of two variables: Rosenbrock's valley, Beale's function, and a
// narrow valley whose gradients are noisy. Each optimizer has the learning rate, of a fixed list, that ends lowest there,
// and no weight decay; what else it has are its defaults, but SGD and SGDS have momentum 0.9.
//
//     trajectories trajectories.svg race.svg
//
// The first picture has a row for each optimizer, which the site's pages of the optimizers show one by one. The second
// shows some of them move, for five seconds.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gradus/gradus.hpp>

namespace {

constexpr int steps = 150, shown = 75;  // every second step is drawn
constexpr double panel_width = 200, panel_height = 150, gap = 12, caption = 46, foot = 24;
constexpr double row_width = 3 * panel_width + 4 * gap, row_height = caption + panel_height + foot;

struct point {
  double x, y;
};

struct landscape {
  const char* name;
  double left, right, bottom, top;  // what is drawn
  point start, minimum;
  double noise;  // the standard deviation of each gradient's noise
  double (*value)(point);
  point (*gradient)(point);
};

double square(double a) { return a * a; }

const std::array landscapes{
    landscape{"Rosenbrock",
              -2,
              2,
              -1,
              3,
              {-1.2, 1},
              {1, 1},
              0,
              [](point p) { return square(1 - p.x) + 100 * square(p.y - p.x * p.x); },
              [](point p) {
                const double r = p.y - p.x * p.x;
                return point{-2 * (1 - p.x) - 400 * p.x * r, 200 * r};
              }},
    landscape{"Beale",
              -1,
              4.5,
              -2,
              2.5,
              {1, -1.2},
              {3, 0.5},
              0,
              [](point p) {
                return square(1.5 - p.x + p.x * p.y) + square(2.25 - p.x + p.x * square(p.y)) +
                       square(2.625 - p.x + p.x * p.y * square(p.y));
              },
              [](point p) {
                const double y2 = p.y * p.y, y3 = y2 * p.y;
                const double a = 1.5 - p.x + p.x * p.y, b = 2.25 - p.x + p.x * y2, c = 2.625 - p.x + p.x * y3;
                return point{2 * (a * (p.y - 1) + b * (y2 - 1) + c * (y3 - 1)),
                             2 * p.x * (a + 2 * b * p.y + 3 * c * y2)};
              }},
    landscape{"a noisy valley",
              -2,
              2,
              -1.5,
              1.5,
              {-1.7, 1.1},
              {0, 0},
              2,
              [](point p) { return (square(p.x + p.y) + 40 * square(p.y - p.x / 2)) / 2; },
              [](point p) {
                const double a = p.x + p.y, b = 40 * (p.y - p.x / 2);
                return point{a - b / 2, a + b};
              }},
};

/// Normal random numbers, the same on every machine: the sum of twelve uniform ones.
class normal_numbers {
  std::uint64_t state_ = 1;

 public:
  double operator()()
  {
    double sum = -6;
    for (int k = 0; k < 12; ++k) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      sum += double(state_ >> 11) / 9007199254740992.0;
    }
    return sum;
  }
};

struct run {
  double lr = 0, end = std::numeric_limits<double>::infinity();  // the mean of the function's logarithm at the end
  std::vector<point> path;
};

/// One run; `end` is infinite if it leaves the surroundings of the picture.
template <class Recipe>
run train(const landscape& f, Recipe recipe, double lr)
{
  recipe.lr = lr;
  if constexpr (requires { recipe.weight_decay; })
    recipe.weight_decay = 0;
  if constexpr (requires { recipe.dampening; })
    recipe.momentum = 0.9;  // SGD's and SGDS's, as almost everybody sets it
  std::array<double, 2> weights{f.start.x, f.start.y}, gradients{};
  gradus::optimizer<Recipe, double, gradus::backend::scalar> opt(recipe);
  opt.add(weights, gradients);

  run result{lr, 0, {f.start}};
  normal_numbers noise;
  const double width = f.right - f.left, height = f.top - f.bottom;
  for (int step = 0; step < steps; ++step) {
    const point g = f.gradient({weights[0], weights[1]});
    gradients = {g.x + f.noise * noise(), g.y + f.noise * noise()};
    opt.step();
    const point p{weights[0], weights[1]};
    if (!(p.x > f.left - width / 4 && p.x < f.right + width / 4 && p.y > f.bottom - height / 4 &&
          p.y < f.top + height / 4))
      return {lr, std::numeric_limits<double>::infinity(), {}};
    if (step % (steps / shown) == steps / shown - 1)
      result.path.push_back(p);
    if (step >= steps - 15)
      result.end += std::log10(f.value(p) + 1e-12) / 15;
  }
  return result;
}

template <class Recipe>
run best_run(const landscape& f)
{
  run best;
  for (int k = -20; k <= 5; ++k)  // 1e-5 to about 18
    if (run one = train(f, Recipe{}, std::pow(10.0, k / 4.0)); one.end < best.end)
      best = std::move(one);
  return best;
}

// ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A number with one digit behind the point.
std::string number(double x)
{
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", x);
  return text;
}

point on_panel(const landscape& f, point p)
{
  return {(p.x - f.left) / (f.right - f.left) * panel_width, (f.top - p.y) / (f.top - f.bottom) * panel_height};
}

/// The contour lines of a function, by marching squares: segments in the panel's coordinates.
std::string contours(const landscape& f)
{
  constexpr int columns = 64, rows = 48;
  std::vector<double> height;
  for (int j = 0; j <= rows; ++j)
    for (int i = 0; i <= columns; ++i)
      height.push_back(std::log10(
          f.value({f.left + (f.right - f.left) * i / columns, f.top - (f.top - f.bottom) * j / rows}) + 1e-3));
  std::string d;
  for (double level = -2; level < 4; level += 0.5)
    for (int j = 0; j < rows; ++j)
      for (int i = 0; i < columns; ++i) {
        const std::array<point, 4> corner{
            {{double(i), double(j)}, {i + 1.0, double(j)}, {i + 1.0, j + 1.0}, {double(i), j + 1.0}}};
        const auto at = [&](const point& p) { return height[std::size_t(p.y) * (columns + 1) + std::size_t(p.x)]; };
        std::vector<point> crossings;
        for (std::size_t k = 0; k < 4; ++k) {
          const point a = corner[k], b = corner[(k + 1) % 4];
          const double from = at(a), to = at(b);
          if ((from < level) != (to < level)) {
            const double share = (level - from) / (to - from);
            crossings.push_back({a.x + share * (b.x - a.x), a.y + share * (b.y - a.y)});
          }
        }
        for (std::size_t k = 0; k + 1 < crossings.size(); k += 2)
          d += "M" + number(crossings[k].x * panel_width / columns) + " " +
               number(crossings[k].y * panel_height / rows) + "L" + number(crossings[k + 1].x * panel_width / columns) +
               " " + number(crossings[k + 1].y * panel_height / rows);
      }
  return d;
}

std::string path_of(const landscape& f, const std::vector<point>& path)
{
  std::string d;
  for (const point& p : path) {
    const point q = on_panel(f, p);
    d += (d.empty() ? "M" : "L") + number(q.x) + " " + number(q.y);
  }
  return d;
}

std::string cross(const landscape& f, point p)
{
  const point q = on_panel(f, p);
  return "<path class=\"end\" d=\"M" + number(q.x - 5) + " " + number(q.y) + "h10M" + number(q.x) + " " +
         number(q.y - 5) + "v10\"/>";
}

constexpr const char* style =
    "<style>text{font:15px sans-serif;fill:#222}.name{font-weight:bold;font-size:18px}.lines{fill:none;stroke:#bbb;"
    "stroke-width:.7}.frame{fill:#fff;stroke:#888}.path{fill:none;stroke:#0b5394;stroke-width:2}.other{fill:none;"
    "stroke:#777;stroke-width:1.5;stroke-dasharray:5 3}.dot{fill:#fff;stroke:#0b5394;stroke-width:1.2}.start{fill:#222}"
    ".end{fill:none;stroke:#b34700;stroke-width:3}</style>";

void define_panels(std::ostream& out)
{
  out << "<defs><clipPath id=\"panel\"><rect width=\"" << panel_width << "\" height=\"" << panel_height
      << "\"/></clipPath>\n";
  for (std::size_t k = 0; k < landscapes.size(); ++k)
    out << "<g id=\"f" << k << "\"><rect class=\"frame\" width=\"" << panel_width << "\" height=\"" << panel_height
        << "\"/><path class=\"lines\" d=\"" << contours(landscapes[k]) << "\"/></g>\n";
  out << "</defs>\n";
}

struct drawn {
  std::string name;
  std::vector<run> runs;  // on each landscape
};

/// Text for readers who do not see the picture.
std::string summary(const drawn& x)
{
  std::string text;
  for (std::size_t k = 0; k < landscapes.size(); ++k) {
    const run& r = x.runs[k];
    char buffer[160];
    std::snprintf(buffer, sizeof buffer, "%s%s with lr %.2g", k == 0 ? "" : "; ", landscapes[k].name, r.lr);
    text += r.path.empty() ? std::string(k == 0 ? "" : "; ") + landscapes[k].name + ": no learning rate stays near"
                           : buffer;
  }
  return text;
}

void draw_rows(std::ostream& out, const std::vector<drawn>& all, const drawn& reference)
{
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << row_width << " "
      << row_height * double(all.size()) << "\" width=\"" << row_width << "\" height=\""
      << row_height * double(all.size()) << "\">\n"
      << "<title>The paths of all optimizers on three functions</title>\n"
      << style << "\n";
  define_panels(out);
  double y = 0;
  for (const drawn& x : all) {
    out << "<g id=\"" << x.name << "\" transform=\"translate(0 " << y << ")\"><title>" << x.name << ": " << summary(x)
        << "</title>\n<text class=\"name\" x=\"" << gap << "\" y=\"20\">" << x.name << "</text>\n";
    for (std::size_t k = 0; k < landscapes.size(); ++k) {
      const landscape& f = landscapes[k];
      const double left = gap + double(k) * (panel_width + gap);
      char lr[48];
      std::snprintf(lr, sizeof lr, "lr %.2g", x.runs[k].lr);
      out << "<text x=\"" << left << "\" y=\"" << caption - 6 << "\">" << f.name << "</text>"
          << "<text x=\"" << left << "\" y=\"" << caption + panel_height + 17 << "\">"
          << (x.runs[k].path.empty() ? "no lr stays near" : lr) << "</text>"
          << "<g transform=\"translate(" << left << " " << caption << ")\"><g clip-path=\"url(#panel)\"><use href=\"#f"
          << k << "\"/>";
      if (x.name != reference.name)
        out << "<path class=\"other\" d=\"" << path_of(f, reference.runs[k].path) << "\"/>";
      const std::vector<point>& path = x.runs[k].path;
      out << "<path class=\"path\" d=\"" << path_of(f, path) << "\"/>";
      for (std::size_t i = 5; i < path.size(); i += 10) {
        const point q = on_panel(f, path[i]);
        out << "<circle class=\"dot\" cx=\"" << number(q.x) << "\" cy=\"" << number(q.y) << "\" r=\"3\"/>";
      }
      const point s = on_panel(f, f.start);
      out << "<circle class=\"start\" cx=\"" << number(s.x) << "\" cy=\"" << number(s.y) << "\" r=\"4\"/>"
          << cross(f, f.minimum) << "</g></g>\n";
    }
    out << "</g>\n";
    y += row_height;
  }
  out << "</svg>\n";
}

/// Some optimizers move over one landscape, told apart by colour (of Okabe and Ito, safe for the colour-blind), mark and
/// name.
void draw_race(std::ostream& out, const std::vector<drawn>& all)
{
  constexpr std::array names{"sgd", "adam", "adams", "adagrad", "rmsprop", "lion", "adopt", "schedule_free_adamw"};
  constexpr std::array colours{"#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#a07800", "#3b8fc4", "#777777"};
  constexpr std::array marks{
      "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "M-5-5h10v10h-10z", "M0-6L6 5H-6z",  "M0 6L6-5H-6z", "M0-7L7 0L0 7L-7 0z",
      "M-6-2h4v-4h4v4h4v4h-4v4h-4v-4h-4z",    "M-6-3h12v6h-12z",  "M-3-6h6v12h-6z"};
  const landscape& f = landscapes[1];
  constexpr double scale = 3, legend = 28;
  const double height = panel_height * scale;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << panel_width * scale << " "
      << height + 4 * legend + 8
      << "\">\n<title>Eight optimizers move over Beale's function, for five seconds</title>\n"
      << "<style>text{font:20px "
         "sans-serif;fill:#222}.lines{fill:none;stroke:#bbb;stroke-width:.5}.frame{fill:#fff;stroke:"
         "#888;stroke-width:.4}.end{fill:none;stroke:#222;stroke-width:1.5}</style>\n<defs><g id=\"f\"><rect "
         "class=\"frame\" width=\""
      << panel_width << "\" height=\"" << panel_height << "\"/><path class=\"lines\" d=\"" << contours(f)
      << "\"/></g></defs>\n<g transform=\"scale(" << scale << ")\"><use href=\"#f\"/>" << cross(f, f.minimum) << "\n";
  for (std::size_t k = 0; k < names.size(); ++k)
    for (const drawn& x : all)
      if (x.name == names[k]) {
        const std::string d = path_of(f, x.runs[1].path);
        out << "<path d=\"" << d << "\" fill=\"none\" stroke=\"" << colours[k]
            << "\" stroke-width=\".6\" opacity=\".7\"/>"
            << "<g><path d=\"" << marks[k] << "\" fill=\"" << colours[k]
            << "\" stroke=\"#fff\" stroke-width=\"1\" transform=\"scale(.6)\"/><animateMotion dur=\"5s\" "
               "fill=\"freeze\" "
               "calcMode=\"linear\" path=\""
            << d << "\"/></g>\n";
      }
  out << "</g>\n";
  for (std::size_t k = 0; k < names.size(); ++k) {
    const double x = 16 + double(k % 2) * panel_width * scale / 2, y = height + legend * (double(k / 2) + 1) - 6;
    out << "<path d=\"" << marks[k] << "\" fill=\"" << colours[k] << "\" transform=\"translate(" << x << " " << y
        << ") scale(1.4)\"/><text x=\"" << x + 18 << "\" y=\"" << y + 7 << "\">" << names[k] << "</text>\n";
  }
  out << "</svg>\n";
}

}  // namespace

int main(int argc, char** argv)
{
  if (argc != 3) {
    std::fprintf(stderr, "usage: trajectories ROWS.svg RACE.svg\n");
    return 2;
  }
  std::vector<drawn> all;
  drawn reference;
  gradus::for_each_recipe([&]<class Recipe>(std::string_view name, std::type_identity<Recipe>) {
    drawn x{std::string(name), {}};
    for (const landscape& f : landscapes)
      x.runs.push_back(best_run<Recipe>(f));
    std::printf("%-20s %s\n", x.name.c_str(), summary(x).c_str());
    if (name == "adamw")
      reference = x;
    all.push_back(std::move(x));
  });
  std::ofstream rows(argv[1]), race(argv[2]);
  draw_rows(rows, all, reference);
  draw_race(race, all);
  if (!rows.flush() || !race.flush()) {
    std::fprintf(stderr, "cannot write %s or %s\n", argv[1], argv[2]);
    return 1;
  }
}
