<?php

namespace App\Stacks\ANamespaceWhoseNameIsLong\WithAnotherOneBelowItThatIsLongToo;

use function App\Stacks\grow;

class AClassWithTheLongestNameOfThemAll
{
    public function call()
    {
        return (function () {
            return (function () {
                return (function () {
                    return grow();
                })();
            })();
        })();
    }
}
