<?php

namespace App\Stacks\Included;

use function App\Stacks\grow;

function growing()
{
    return grow();
}

return grow();
