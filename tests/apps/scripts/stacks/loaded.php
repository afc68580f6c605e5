<?php

namespace App\Stacks;

grow();

class Loaded
{
}
