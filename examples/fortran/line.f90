! A line through points, by Adam from Fortran: gradus.h through iso_c_binding.
program line
  use, intrinsic :: iso_c_binding
  implicit none

  type, bind(c) :: gradus_number
    type(c_ptr) :: name
    real(c_double) :: value
  end type

  interface
    integer(c_int) function gradus_create(recipe, numbers, n, dtype, optimizer) bind(c)
      import
      character(kind=c_char), intent(in) :: recipe(*)
      type(gradus_number), intent(in) :: numbers(*)
      integer(c_size_t), value :: n
      integer(c_int), value :: dtype
      type(c_ptr), intent(out) :: optimizer
    end function
    integer(c_int) function gradus_add(optimizer, name, parameters, gradients, n, group, tensor) bind(c)
      import
      type(c_ptr), value :: optimizer, parameters, gradients, tensor
      character(kind=c_char), intent(in) :: name(*)
      integer(c_size_t), value :: n, group
    end function
    integer(c_int) function gradus_step(optimizer, options, report) bind(c)
      import
      type(c_ptr), value :: optimizer, options, report
    end function
    subroutine gradus_destroy(optimizer) bind(c)
      import
      type(c_ptr), value :: optimizer
    end subroutine
  end interface

  integer(c_int), parameter :: float64 = 1
  integer, parameter :: points = 100
  character(kind=c_char), target :: lr(3) = ['l', 'r', c_null_char]
  type(gradus_number) :: numbers(1)
  type(c_ptr) :: optimizer
  ! The optimizer keeps their addresses, so they are targets and stay in one place.
  real(c_double), target :: w(2) = [0, 0], dw(2)
  real(c_double) :: x(points), error(points)
  integer :: i

  x = [(real(i, c_double) / points, i = 1, points)]
  numbers(1) = gradus_number(c_loc(lr), 0.05_c_double)
  if (gradus_create('adam' // c_null_char, numbers, 1_c_size_t, float64, optimizer) /= 0) error stop 'gradus_create'
  if (gradus_add(optimizer, 'line' // c_null_char, c_loc(w), c_loc(dw), 2_c_size_t, 0_c_size_t, c_null_ptr) /= 0) &
    error stop 'gradus_add'
  do i = 1, 1000
    error = w(1) + w(2) * x - (3 - 2 * x)
    dw = [sum(error), sum(error * x)] * 2 / points
    if (gradus_step(optimizer, c_null_ptr, c_null_ptr) /= 0) error stop 'gradus_step'
  end do
  call gradus_destroy(optimizer)
  print '(a, f7.4, a, f7.4, a)', 'y = ', w(1), ' + ', w(2), ' x; expected 3 - 2 x'
  if (maxval(abs(w - [3.0_c_double, -2.0_c_double])) > 0.01_c_double) error stop 'the line is another'
end program
