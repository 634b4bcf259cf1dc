// Templates are only half compiled by an include; these are instantiated after the poison.
template class gradus::optimizer<gradus::adams, float>;
template class gradus::any_optimizer<double>;
