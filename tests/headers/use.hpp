#pragma once
// Templates are only half compiled by an include; these are instantiated after the poison, and run: poisoned.cpp is a
// program.
template class gradus::optimizer<gradus::adams, float>;
template class gradus::any_optimizer<double>;
template void gradus::save(const gradus::any_optimizer<double>&, const std::string&, const gradus::save_options&);
template gradus::load_report gradus::load(gradus::optimizer<gradus::adams, float>&, const std::string&,
                                          const gradus::load_options&);

// The user's macros are the user's still.
static_assert(sizeof(T) == sizeof(double) && A + min(2, 1) + abs(-1) == 3 && PI > 3);
#if !defined(slots) || !defined(check) || !defined(select) || !defined(I) || !defined(near) || defined(M_)
#error "a macro was not given back"
#endif

int main()
{
  std::vector<float> weights(3, 1.0f), gradients(3, 0.5f);
  gradus::optimizer<gradus::adams, float> optimizer({.lr = 0.5});
  optimizer.add(weights, gradients);
  (optimizer.step)();  // in brackets, for the user's macros take what the user writes
  return weights[2] < 1 ? 0 : 1;
}
