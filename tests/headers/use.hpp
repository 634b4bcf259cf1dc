// Templates are only half compiled by an include; these are instantiated after the poison.
template class gradus::optimizer<gradus::adams, float>;
template class gradus::any_optimizer<double>;
template void gradus::save(const gradus::any_optimizer<double>&, const std::string&, const gradus::save_options&);
template gradus::load_report gradus::load(gradus::optimizer<gradus::adams, float>&, const std::string&, const gradus::load_options&);
