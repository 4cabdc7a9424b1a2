package lab

import "errors"

// ErrCannotHold means that this kernel lacks what a scenario needs. The error
// that wraps it says what that is. Nothing was played.
var ErrCannotHold = errors.New("this kernel cannot hold the scenario")
